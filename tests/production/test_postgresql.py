"""The same installation on PostgreSQL: a job through the daemon, and a campaign."""

import json
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SERVER = Path(__file__).with_name('postgres_server.py')
SCRIPT = Path(__file__).parents[1] / 'workchains' / 'small_campaign.py'


@pytest.fixture(scope='module')
def postgresql():
    """Return the address of an empty database on a server of our own."""
    if not (shutil.which('pg_ctl') or list(Path('/usr/lib/postgresql').glob('*/bin/pg_ctl'))):
        pytest.skip('PostgreSQL is not installed: no pg_ctl on PATH or in /usr/lib/postgresql (apt install postgresql)')
    if 'postgres' not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip('there is no user `postgres`, whom PostgreSQL needs when root starts it')
    import psycopg

    server = subprocess.Popen([sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        address = json.loads(server.stdout.readline())
        login = f'host=localhost port={address["port"]} user={address["user"]} dbname=postgres'
        with psycopg.connect(login, autocommit=True) as connection:
            connection.execute("create role oodal login password 'se/cret'")
            connection.execute("create database oodal owner oodal encoding 'UTF8' template template0")
        yield f'postgresql://oodal:se%2Fcret@localhost:{address["port"]}/oodal'
    finally:
        server.communicate(timeout=60)


@pytest.mark.timeout(1800)  # several campaigns, each minutes on a busy machine
def test_a_job_and_a_campaign(home, postgresql):
    said = home.run('aiida-oodal', 'setup', 'profile', '--postgresql', postgresql)
    assert 'core.psql_dos' in said
    assert "found profile 'oodal'" in home.run('aiida-oodal', 'setup', 'profile', '--postgresql', postgresql)
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'local', '--venv', sys.prefix, '--poll-interval', '0.5',
             '--work-dir', str(home.folder / 'run'))  # fmt: skip
    assert 'all is well' in home.run('aiida-oodal', 'doctor', '--fix')
    assert 'it came back: ' in home.run('aiida-oodal', 'setup', 'test', '--computer', 'localhost')
    home.run('verdi', 'run', str(SCRIPT))
    home.run('aiida-oodal', 'watch', str(home.ask_campaign()['pk']), timeout=600)
    found = home.ask_campaign()
    assert found['ok'], found['message']
    assert len(found['labelled']) == len(set(found['labelled'])) > 0
