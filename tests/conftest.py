"""A real AiiDA profile in a folder of its own, with the ZeroMQ broker, so that a real daemon can run."""

import atexit
import functools
import gc
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import hypothesis
import pytest
from machine import require

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

_ERRORS = pytest.StashKey()
pytest_plugins = ['aiida.tools.pytest_fixtures']


class _Errors(logging.Handler):
    """Collect what asyncio says of errors that nobody looked at, which may be long after their test."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def pytest_sessionstart(session):
    session.config.stash[_ERRORS] = _Errors()
    logging.getLogger('asyncio').addHandler(session.config.stash[_ERRORS])


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session, exitstatus):
    """Fail a session that would end with tracebacks below its summary."""
    gc.collect()
    if session.config.stash[_ERRORS].said and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)


def pytest_terminal_summary(terminalreporter, config):
    for text in config.stash[_ERRORS].said:
        terminalreporter.write_line(f'an error that no test looked at: {text}', red=True)


@pytest.fixture(scope='session')
def aiida_profile(aiida_config, aiida_profile_factory):
    storage = {}
    if 'OODAL_TEST_POSTGRESQL' in os.environ:  # what tests/queue/test_databases.py sets
        settings = json.loads(os.environ['OODAL_TEST_POSTGRESQL'])
        repository = (Path(os.environ['AIIDA_PATH']) / 'repository').as_uri()
        storage = {
            'storage_backend': 'core.psql_dos',
            'storage_config': {**settings, 'repository_uri': repository},
        }
    with aiida_profile_factory(aiida_config, broker_backend='core.zeromq', **storage) as profile:
        # The runners of a test profile ask the database without a pause whether a child has ended. That takes a core
        # for each test and each worker, which jobs do not get: so workers look once a second, and tests as below.
        profile.is_test_profile = False
        aiida_config.set_option('daemon.timeout', 30, scope=profile.name)
        aiida_config.set_option('runner.poll.interval', 1, scope=profile.name)
        aiida_config.store()
        with pytest.MonkeyPatch.context() as patch:
            # A test hears from no broker when a child has ended, and AiiDA's option knows whole seconds only.
            from aiida.manage.manager import Manager

            patch.setattr(Manager, 'create_runner', functools.partialmethod(Manager.create_runner, poll_interval=0.1))
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


@pytest.fixture(scope='session')
def postgresql_server():
    """Return port and superuser of a PostgreSQL of our own."""
    require('postgresql')
    script = Path(__file__).with_name('postgres_server.py')
    server = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(server.stdout.readline())
    finally:
        server.communicate(timeout=60)


@pytest.fixture
def postgresql(postgresql_server):
    """Return the settings of an empty database, which nobody had before."""
    import psycopg

    name = f'oodal_{uuid.uuid4().hex[:8]}'
    login = f'host=localhost port={postgresql_server["port"]} user={postgresql_server["user"]} dbname=postgres'
    with psycopg.connect(login, autocommit=True) as connection:
        connection.execute(f"create role {name} login password 'se/cret'")
        connection.execute(f"create database {name} owner {name} encoding 'UTF8' template template0")
    return {
        'database_engine': 'postgresql_psycopg',
        'database_hostname': 'localhost',
        'database_port': postgresql_server['port'],
        'database_username': name,
        'database_password': 'se/cret',
        'database_name': name,
    }


@pytest.fixture
def engine_code():
    from aiida_oodal.calculations.codes import get_engine_code

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
