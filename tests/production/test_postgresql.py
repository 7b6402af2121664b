"""The same installation on PostgreSQL: a job through the daemon, and a campaign."""

import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SCRIPT = Path(__file__).parents[1] / 'workchains' / 'small_campaign.py'


@pytest.fixture
def address(postgresql):
    """Return the address of the empty database."""
    name = postgresql['database_name']
    return f'postgresql://{name}:se%2Fcret@localhost:{postgresql["database_port"]}/{name}'


@pytest.mark.timeout(1800)  # several campaigns, each minutes on a busy machine
def test_a_job_and_a_campaign(home, address):
    said = home.run('aiida-oodal', 'setup', 'profile', '--postgresql', address)
    assert 'core.psql_dos' in said
    assert "found profile 'oodal'" in home.run('aiida-oodal', 'setup', 'profile', '--postgresql', address)
    name = address.rpartition('/')[2]
    other = address.removesuffix(name) + 'other'
    said = home.run('aiida-oodal', 'setup', 'profile', '--postgresql', other, expect=1)
    assert f"in another database: database_name is '{name}', and 'other' is asked for; choose another --name" in said
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'local', '--venv', sys.prefix, '--poll-interval', '0.5',
             '--work-dir', str(home.folder / 'run'))  # fmt: skip
    assert 'all is well' in home.run('aiida-oodal', 'doctor', '--fix')
    assert 'it came back: ' in home.run('aiida-oodal', 'setup', 'test', '--computer', 'localhost')
    home.run('verdi', 'run', str(SCRIPT))
    home.run('aiida-oodal', 'watch', str(home.ask_campaign()['pk']), timeout=600)
    found = home.ask_campaign()
    assert found['ok'], found['message']
    assert len(found['labelled']) == len(set(found['labelled'])) > 0
