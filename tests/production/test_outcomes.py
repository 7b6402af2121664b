"""What cannot be known before submission is paused after a bounded time, and the doctor names it."""

import shutil
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SUBMIT = """
import sys
from aiida import orm
from aiida.engine import submit
from ase.build import bulk
from aiida_oodal.calculations.engine_code import get_engine_code
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData
def send(computer, options):
    builder = LabelCalculation.get_builder()
    builder.code = get_engine_code()
    builder.structures = StructureSetData([bulk('Al', cubic=True)])
    builder.reference = {'calculator': 'emt'}
    builder.metadata.computer = computer
    builder.metadata.options.update(options)
    print(submit(builder).pk)
far = orm.Computer('far', 'nowhere.invalid', '', 'core.ssh_async', 'core.slurm', '/tmp').store()
far.configure(host='nowhere.invalid', safe_interval=0)
send(far, {})
if 'slurm' in sys.argv:
    constraint = '#SBATCH --constraint=none-of-ours'
    send(orm.load_computer('a100-slurm'), {'custom_scheduler_commands': constraint, 'queue_name': 'a100'})
"""


def test_an_unreachable_computer_and_what_only_sbatch_refuses(home):
    slurm = shutil.which('sinfo') is not None
    home.run('aiida-oodal', 'setup', 'profile')
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'a100-slurm' if slurm else 'local', '--venv', sys.prefix,
             '--work-dir', str(home.folder / 'run'), '--walltime', '00:05:00')  # fmt: skip
    # As in production, only sooner: five attempts from 20 s on.
    home.run('verdi', 'config', 'set', 'transport.task_retry_initial_interval', '1')
    home.run('verdi', 'config', 'set', 'transport.task_maximum_attempts', '2')
    home.run('verdi', 'daemon', 'start', '1')
    (home.folder / 'submit.py').write_text(SUBMIT)
    pks = home.run('verdi', 'run', 'submit.py', *(['slurm'] if slurm else [])).split()
    paused = "select count(*) from db_dbnode where json_extract(attributes, '$.paused')"
    home.wait_until(lambda: home.count(paused) == len(pks), f'{pks} are paused', seconds=120)
    said = home.run('aiida-oodal', 'doctor', expect=1)
    causes = ['upload_calculation failed 2 times consecutively', 'submit_calculation failed 2 times consecutively']
    for pk, cause in zip(pks, causes, strict=False):
        assert f'LabelCalculation<{pk}> is paused: Pausing after failed transport task: {cause}' in said
        assert f'verdi process report {pk}; then verdi process play {pk}, or verdi process kill {pk}' in said
    assert "computer 'far' (nowhere.invalid) does not answer" in said
    assert 'mend it: verdi computer test far' in said
    if slurm:
        assert 'Invalid feature specification' in home.run('verdi', 'process', 'report', pks[1])
