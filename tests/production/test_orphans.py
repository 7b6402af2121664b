"""What a kill leaves that no worker will ever look at: the doctor finds it, and `--fix` lets it go on."""

import re
import sqlite3
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

KILLED_BEFORE_THE_BROKER_HEARS = """
import os, signal
from aiida import orm
from aiida.engine import submit
from ase.build import bulk
from plumpy.process_comms import RemoteProcessThreadController
from aiida_oodal.calculations.engine_code import get_engine_code
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData
RemoteProcessThreadController.continue_process = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
builder = LabelCalculation.get_builder()
builder.code = get_engine_code()
builder.structures = StructureSetData([bulk('Al', cubic=True)])
builder.reference = {'calculator': 'emt'}
builder.metadata.computer = orm.load_computer('localhost')
submit(builder)
"""


def test_a_process_whose_submitter_was_killed_and_one_that_was_not_closed(home):
    home.run('aiida-oodal', 'setup', 'profile')
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'local', '--venv', sys.prefix, '--poll-interval', '0.5',
             '--work-dir', str(home.folder / 'run'))  # fmt: skip
    home.run('verdi', 'daemon', 'start', '1')
    assert 'all is well' in home.run('aiida-oodal', 'doctor')

    (home.folder / 'submit.py').write_text(KILLED_BEFORE_THE_BROKER_HEARS)
    home.run('verdi', 'run', 'submit.py', expect=-9)
    said = home.run('aiida-oodal', 'doctor', expect=1)
    (pk,) = re.findall(
        r'BAD processes  1 have no task, no worker will take them up: .*: LabelCalculation<(\d+)>\n', said
    )
    assert 'mend it: aiida-oodal doctor --fix' in said
    name = f'LabelCalculation<{pk}>'
    said = home.run('aiida-oodal', 'doctor', '--fix')
    assert f'gave a task to {name}\n' in said
    assert 'all is well' in said
    closed = "select count(*) from db_dbnode where id = ? and json_extract(attributes, '$.sealed')"
    home.wait_until(lambda: home.count(closed, pk), 'the job ends')
    assert home.count("select json_extract(attributes, '$.exit_status') from db_dbnode where id = ?", pk) == 0

    # As if its worker had been killed before the last entry, an hour ago.
    (database,) = home.folder.glob('.aiida/repository/*/database.sqlite')
    with sqlite3.connect(database, timeout=30) as connection:
        connection.execute(
            "update db_dbnode set attributes = json_remove(attributes, '$.sealed'), "
            "mtime = strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour') where id = ?",
            (pk,),
        )
    connection.close()
    said = home.run('aiida-oodal', 'doctor', expect=1)
    assert f'BAD processes  1 have ended and were not closed, `verdi archive create` would refuse them: {name}' in said
    assert f'closed {name}\n' in home.run('aiida-oodal', 'doctor', '--fix')
    assert home.count(closed, pk) == 1
