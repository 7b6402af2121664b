"""The queue on PostgreSQL: the very tests that SQLite passes, in a profile on a server of our own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
#: Connections that AiiDA leaves to the garbage collector when a daemon is started.
QUIET = ('-W', 'ignore::pytest.PytestUnraisableExceptionWarning')
#: What must hold on every database.
SAME = ('queue/test_store.py', 'queue/test_listing.py', 'workchains/label/test_at_once.py', 'cli/test_queue.py')


@pytest.mark.slow
def test_all_of_it_holds_on_postgresql(postgresql):
    environment = os.environ | {'OODAL_TEST_POSTGRESQL': json.dumps(postgresql)}
    environment.pop('AIIDA_PATH')
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *QUIET, *SAME]
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert 'skipped' not in done.stdout.splitlines()[-1]
