"""What cannot be known before submission: a computer out of reach is waited for, a refusal of ``sbatch`` is an end."""

import re
import shutil
import sys

import pytest
from machine import has

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SUBMIT = """
import sys
from aiida import orm
from aiida.engine import submit
from ase.build import bulk
from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData
def send(computer, options):
    builder = LabelCalculation.get_builder()
    builder.code = get_engine_code()
    builder.structures = StructureSetData([bulk('Al', cubic=True)])
    builder.calculator = {'calculator': 'emt'}
    builder.metadata.computer = computer
    builder.metadata.options.update(options)
    print(submit(builder).pk)
far = orm.Computer('far', 'nowhere.invalid', '', 'core.ssh_async', 'core.slurm', '/tmp').store()
far.configure(host='nowhere.invalid', safe_interval=0)
send(far, {})
near = orm.load_computer('near')
send(near, {})
if 'slurm' in sys.argv:
    constraint = '#SBATCH --constraint=none-of-ours'
    send(orm.load_computer('a100-slurm'), {'custom_scheduler_commands': constraint, 'queue_name': 'a100'})
"""


def test_an_unreachable_computer_and_what_only_sbatch_refuses(home):
    slurm = has('slurm')
    home.run('aiida-oodal', 'setup', 'profile')
    if slurm:
        home.run('aiida-oodal', 'setup', 'computer', '--preset', 'a100-slurm', '--venv', sys.prefix,
                 '--work-dir', str(home.folder / 'run'), '--walltime', '00:05:00')  # fmt: skip
    disk = home.folder / 'disk'
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'local', '--label', 'near', '--venv', sys.prefix,
             '--work-dir', str(disk / 'run'))  # fmt: skip
    # A disk that is not mounted: nothing can be made below it.
    shutil.rmtree(disk)
    disk.touch()
    # As in production, only sooner: five attempts from 20 s on.
    home.run('verdi', 'config', 'set', 'transport.task_retry_initial_interval', '1')
    home.run('verdi', 'config', 'set', 'transport.task_maximum_attempts', '2')
    home.run('verdi', 'daemon', 'start', '1')
    (home.folder / 'submit.py').write_text(SUBMIT)
    far, near, *refused = home.run('verdi', 'run', 'submit.py', *(['slurm'] if slurm else [])).split()
    paused = "select count(*) from db_dbnode where json_extract(attributes, '$.paused')"
    home.wait_until(lambda: home.count(paused) == 2, f'{far} and {near} are paused', seconds=120)
    said = home.run('aiida-oodal', 'doctor', expect=1)
    for pk in (far, near):
        assert re.search(
            rf'LabelCalculation<{pk}> is paused since [-\d]+ [\d:]+: Pausing after failed transport task: '
            'upload_calculation failed 2 times consecutively: .*Error',
            said,
        ), said
        assert f'verdi process report {pk}; then verdi process play {pk}, or verdi process kill {pk}' in said
    assert "computer 'far' (nowhere.invalid) does not answer" in said
    assert 'mend it: verdi computer test far' in said

    disk.unlink()
    said = home.run('aiida-oodal', 'doctor', '--fix', expect=1)
    assert f'resumed LabelCalculation<{near}>\n' in said
    assert f'LabelCalculation<{far}> is paused' in said
    ended = "select count(*) from db_dbnode where id = ? and json_extract(attributes, '$.exit_status') = ?"
    home.wait_until(lambda: home.count(ended, near, 0), f'{near} goes on')
    for pk in refused:
        home.wait_until(lambda pk=pk: home.count(ended, pk, 132), f'{pk} ends')
        assert 'Slurm does not take the job: sbatch: error: Batch job submission failed: Invalid feature' in home.run(
            'verdi', 'process', 'status', pk
        ) + home.run('verdi', 'process', 'show', pk)
