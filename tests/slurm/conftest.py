"""A computer with a real Slurm, made from our own template; ``slurm_up.sh`` starts one."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from machine import require

LONGEST = 240  # seconds for anything that runs here; a few are enough on an idle machine


@pytest.fixture(scope='session')
def slurm():
    """Return a function that asks Slurm something; skip where there is none."""
    require('slurm')

    def ask(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f'{command}: {done.stderr}'
        return done.stdout

    return ask


@pytest.fixture(scope='session')
def computer_settings(tmp_path_factory):
    from aiida_oodal.operations.presets import ComputerSettings

    return ComputerSettings(
        label='a100-slurm',
        work_dir=str(tmp_path_factory.mktemp('slurm')),
        venv=sys.prefix,
        walltime='00:10:00',
        poll_interval=0.5,
    )


@pytest.fixture(scope='session')
def slurm_computer(slurm, aiida_profile, computer_settings):
    from aiida_oodal.operations.computers import make_computer

    return make_computer('a100-slurm', computer_settings, print)


@pytest.fixture
def daemon(daemon_client):
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)
    return daemon_client


@pytest.fixture
def wait_until(daemon):
    """Return a function that waits for something, and shows what the daemon did if that never comes."""

    def wait(condition, what, seconds=LONGEST):
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                log = Path(daemon.daemon_log_file).read_text()[-5000:]
                queue = subprocess.run(
                    ['squeue', '--states=all'], capture_output=True, text=True, timeout=30, check=False
                )
                pytest.fail(f'{what}: not in {seconds} s\n{queue.stdout}\n{log}')
            time.sleep(0.2)
        return value

    return wait


@pytest.fixture
def job_of(wait_until, slurm):
    """Return a function that waits for the job of a process to run, and returns its id."""

    def find(node):
        def running():
            job = node.get_job_id()
            return (
                job
                if job and slurm('squeue', '--noheader', '--format=%T', f'--jobs={job}').strip() == 'RUNNING'
                else None
            )

        return wait_until(running, f'{node} runs')

    return find


@pytest.fixture
def requested(slurm):
    """Return a function that says partition, memory and gres of the job of a process, as ``squeue`` shows them."""

    def ask(node):
        job = f'--jobs={node.get_job_id()}'
        return slurm('squeue', '--noheader', '--states=all', '--format=%P %m %b', job).split()

    return ask


@pytest.fixture
def on_slurm(slurm_computer, engine_code):
    """Return a function that sends a builder of any engine calculation to Slurm with the options of its process."""
    from aiida_oodal.calculations.job.options import get_job_options

    def fill(builder, process, **options):
        builder.code = engine_code
        builder.metadata.computer = slurm_computer
        builder.metadata.options.update({**get_job_options(slurm_computer, process), **options})
        return builder

    return fill


@pytest.fixture
def label_builder(on_slurm):
    from ase.build import bulk

    from aiida_oodal.calculations.label import LabelCalculation
    from aiida_oodal.data import StructureSetData

    def build(**options):
        builder = on_slurm(LabelCalculation.get_builder(), 'label', **options)
        builder.structures = StructureSetData([bulk('Al', cubic=True)])
        builder.calculator = {'calculator': 'emt'}
        return builder

    return build


@pytest.fixture
def latents_builder(on_slurm):
    import ase.io

    from aiida_oodal.calculations.latents import LatentsCalculation
    from aiida_oodal.data import MaceModelData, StructureSetData

    folder = Path(__file__).parents[1] / 'data' / 'mace_alcu'

    def build(**options):
        builder = on_slurm(LatentsCalculation.get_builder(), 'latents', **options)
        builder.structures = StructureSetData(ase.io.read(folder / 'heldout.extxyz', ':3'))
        builder.models = {label: MaceModelData(folder / f'{label}.model') for label in ('w1', 'w2', 'w3', 'w4')}
        return builder

    return build


@pytest.fixture
def md_builder(on_slurm):
    from ase.build import bulk

    from aiida_oodal.calculations.md import MdCalculation
    from aiida_oodal.data import AcePotentialData, StructureSetData

    folder = Path(__file__).parents[1] / 'data' / 'ace-al'

    def build(steps=20, **options):
        builder = on_slurm(MdCalculation.get_builder(), 'md', **options)
        builder.potential = AcePotentialData(folder / 'Al.yaml', folder / 'Al.asi')
        builder.structure = StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(3)])
        builder.settings = {'temperature': 300, 'steps': steps}
        return builder

    return build
