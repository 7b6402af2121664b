"""One small campaign through a real daemon, shared by the tests that look at what it left."""

import runpy
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / 'small_campaign.py'
#: Far beyond what it takes; a hanging campaign must not hang the suite.
PATIENCE_SECONDS = 900


@pytest.fixture(scope='session')
def campaign(localhost, daemon_client):
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)
    node = runpy.run_path(str(SCRIPT))['campaign']
    end = time.monotonic() + PATIENCE_SECONDS
    while not node.is_terminated:
        assert time.monotonic() < end, Path(daemon_client.daemon_log_file).read_text()
        time.sleep(0.5)
    return node
