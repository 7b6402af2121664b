"""A real AiiDA profile in a folder of its own, with the ZeroMQ broker, so that a real daemon can run."""

import atexit
import os
import runpy
import shutil
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest

# Machines differ in speed and may be busy: nothing here is about time.
hypothesis.settings.register_profile(
    'oodal', deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile('oodal')

# Read once, when aiida is imported: the home folder is never touched.
os.environ['AIIDA_PATH'] = tempfile.mkdtemp(prefix='oodal-tests-')
(Path(os.environ['AIIDA_PATH']) / '.aiida').mkdir()
atexit.register(shutil.rmtree, os.environ['AIIDA_PATH'], ignore_errors=True)
# The daemon looks for `verdi` here, and jobs for `python3`.
os.environ['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
os.environ.setdefault('OMP_NUM_THREADS', '1')

pytest_plugins = ['aiida.tools.pytest_fixtures']


@pytest.fixture(scope='session')
def aiida_profile(aiida_config, aiida_profile_factory):
    with aiida_profile_factory(aiida_config, broker_backend='core.zeromq') as profile:
        aiida_config.set_option('daemon.timeout', 30, scope=profile.name)
        aiida_config.set_option('runner.poll.interval', 1, scope=profile.name)
        aiida_config.store()
        yield profile


@pytest.fixture(autouse=True)
def _load_profile(request):
    """Load the profile for every test but those of the engine, which knows nothing of AiiDA."""
    if 'engine' not in request.path.parts:
        request.getfixturevalue('aiida_profile')


@pytest.fixture(scope='session')
def localhost(aiida_profile, tmp_path_factory):
    """Return a computer whose jobs find the python of this environment."""
    from aiida.orm import Computer

    computer = Computer(
        label='localhost',
        hostname='localhost',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(tmp_path_factory.mktemp('scratch')),
    )
    computer.set_prepend_text(f'export PATH="{Path(sys.executable).parent}:$PATH"')
    computer.store()
    computer.configure(safe_interval=0)
    computer.set_minimum_job_poll_interval(0.5)
    computer.set_default_mpiprocs_per_machine(1)
    return computer


@pytest.fixture
def engine_code():
    from aiida_oodal.calculations.engine_code import get_engine_code

    return get_engine_code()


@pytest.fixture(scope='session')
def campaign(localhost, daemon_client):
    """Return one small campaign that ran through a real daemon; many tests look at what it left."""
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)
    node = runpy.run_path(str(Path(__file__).parent / 'workchains' / 'small_campaign.py'))['campaign']
    # Far beyond what it takes: a campaign that hangs must not hang the suite.
    end = time.monotonic() + 900
    while not node.is_terminated:
        assert time.monotonic() < end, Path(daemon_client.daemon_log_file).read_text()
        time.sleep(0.5)
    return node


@pytest.fixture(scope='session')
def screening(localhost):
    """Return one small screening that ran through real jobs; many tests look at what it left."""
    script = runpy.run_path(str(Path(__file__).parent / 'workchains' / 'screening.py'))
    return script['run_screening']()
