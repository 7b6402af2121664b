"""``aiida-oodal setup`` in the profile of the tests; from nothing it is tried in ``tests/production``."""

import shlex
import sys

from click.testing import CliRunner

from aiida_oodal.cli import setup as module
from aiida_oodal.cli.main import main
from aiida_oodal.operations.presets import ComputerSettings, describe_command

SLURM = {'label': 'cluster', 'host': 'login.cluster', 'work_dir': '/scratch/{username}/aiida'}


def invoke(*arguments):
    return CliRunner().invoke(main, ['setup', *arguments])


def test_an_unknown_preset_names_those_there_are():
    result = invoke('computer', '--preset', 'v100', '--dry-run')
    assert result.exit_code == 1
    assert "no preset 'v100'; there are a100-slurm, local" in result.output


def test_the_command_that_made_a_computer_can_be_repeated(monkeypatch):
    settings = ComputerSettings(
        **SLURM,
        modules=('cuda/12.4', 'gcc'),
        path=('/opt/a', '/opt/b c'),
        gres='',
        mpirun='srun -n 4',
        poll_interval=2,
        allow_h200=True,
    )
    asked = []
    monkeypatch.setattr(module, 'make_computer', lambda preset, given, say: asked.append((preset, given)))
    words = shlex.split(describe_command('a100-slurm', settings))
    assert words[:2] == ['aiida-oodal', 'setup']
    result = invoke(*words[2:])
    assert result.exit_code == 0, result.output
    assert asked == [('a100-slurm', settings)]


def test_a_dry_run_shows_the_scripts_and_makes_nothing(aiida_profile):
    from aiida.orm import Computer, QueryBuilder

    before = QueryBuilder().append(Computer).count()
    result = invoke('computer', '--preset', 'a100-slurm', '--dry-run', '--module', 'cuda/12')
    assert result.exit_code == 0, result.output
    assert result.output.count('#SBATCH --gres=gpu:a100:1') == 12  # one for each kind of job
    assert 'need no GPU' in result.output
    assert 'module load cuda/12' in result.output
    assert QueryBuilder().append(Computer).count() == before


def test_h200_is_refused_for_embedding_jobs_unless_it_is_said():
    refused = invoke('computer', '--preset', 'a100-slurm', '--partition', 'h200', '--dry-run')
    assert refused.exit_code == 1
    assert 'embedding jobs do not go to the h200 partition' in refused.output
    allowed = invoke('computer', '--preset', 'a100-slurm', '--partition', 'h200', '--allow-h200', '--dry-run')
    assert allowed.exit_code == 0, allowed.output
    assert '#SBATCH --partition=h200' in allowed.output


def test_a_cluster_needs_to_be_told_where_jobs_run():
    result = invoke('computer', '--preset', 'a100-slurm', '--host', 'login.cluster')
    assert result.exit_code == 1
    assert 'say with --work-dir where jobs run on login.cluster' in result.output


def test_computer_and_codes_can_be_made_again(aiida_profile, tmp_path):
    arguments = [
        'computer',
        '--preset',
        'local',
        '--label',
        'again',
        '--venv',
        sys.prefix,
        '--work-dir',
        str(tmp_path / 'r'),
    ]
    profile = ['-p', aiida_profile.name]
    for words in ("made computer 'again'", "brought computer 'again' up to date"):
        result = invoke(*arguments, *profile)
        assert result.exit_code == 0, result.output
        assert words in result.output
    for words in ('made lmp@again', 'found lmp@again'):
        result = invoke('codes', '--computer', 'again', *profile)
        assert result.exit_code == 0, result.output
        assert words in result.output
        assert 'without pace/extrapolation: for ACE give the engine as code' in result.output
        assert 'the engine oodal-engine-' in result.output
    elsewhere = ['computer', '--preset', 'a100-slurm', '--label', 'again', '--work-dir', '/tmp']
    result = invoke(*elsewhere, *profile)
    assert result.exit_code == 1
    assert "computer 'again' exists with scheduler core.direct, and core.slurm is asked for" in result.output
