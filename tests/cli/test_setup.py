"""``aiida-oodal setup`` in the profile of the tests; from nothing it is tried in ``tests/production``."""

import shlex
import sqlite3
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiida_oodal.cli.main import main
from aiida_oodal.cli.setup_codes import lammps_packages
from aiida_oodal.cli.setup_computer import ComputerSettings, list_presets, memory_kb, render_preset, render_script
from aiida_oodal.engine.errors import OodalError

SLURM = {'label': 'cluster', 'host': 'login.cluster', 'work_dir': '/scratch/{username}/aiida'}


def invoke(*arguments):
    return CliRunner().invoke(main, ['setup', *arguments])


def test_every_preset_renders():
    assert list_presets() == ['a100-slurm', 'local']
    for preset in list_presets():
        values = render_preset(
            preset, ComputerSettings(label='here', work_dir='/tmp/run', conda='mace', modules=('cuda',))
        )
        assert values['computer']['label'] == 'here'
        assert values['computer']['prepend_text'].startswith('module load cuda\n')
        assert 'conda activate mace\n' in values['computer']['prepend_text']


def test_a_cluster_is_reached_by_ssh_and_this_machine_is_not():
    assert render_preset('a100-slurm', ComputerSettings(**SLURM))['computer']['transport'] == 'core.ssh_async'
    here = render_preset('a100-slurm', ComputerSettings(**SLURM | {'host': 'localhost'}))
    assert here['computer']['transport'] == 'core.local'


def test_embedding_jobs_ask_for_one_card_and_sixty_gigabytes():
    script = render_script('a100-slurm', ComputerSettings(**SLURM, account='mat-42', walltime='2:30:00'), 'latents')
    for line in ('--partition=a100', '--mem=61440', '--gres=gpu:a100:1', '--time=02:30:00', '--account=mat-42'):
        assert f'#SBATCH {line}\n' in script
    assert script.strip().endswith("'./oodal-engine' 'latents' 'job.json'  > 'engine.out'\n\ntouch script.end")


def test_what_needs_no_card_goes_where_there_is_none():
    options = render_preset('a100-slurm', ComputerSettings(**SLURM, cpu_partition='cpu'))['options']
    assert options['latents']['queue_name'] == 'a100'
    for process in ('md', 'label', 'reference_md', 'train_ace'):
        assert options[process] == {'queue_name': 'cpu', 'max_memory_kb': 8 * 1024**2, 'max_wallclock_seconds': 86400}


def test_values_cannot_break_out_of_the_template():
    settings = ComputerSettings(**SLURM, account='a"b', venv='/my envs/x', mpirun="srun --mpi=pmi2 'x'")
    values = render_preset('a100-slurm', settings)
    assert values['options']['md']['account'] == 'a"b'
    assert ". '/my envs/x'/bin/activate" in values['computer']['prepend_text']
    assert values['computer']['mpirun_command'] == "srun --mpi=pmi2 'x'"


@pytest.mark.parametrize(('text', 'kilobytes'), [('60G', 62914560), ('512', 524288), ('100k', 100), ('1T', 1024**3)])
def test_memory_as_for_sbatch(text, kilobytes):
    assert memory_kb(text) == kilobytes


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'memory': 'lots'}, "'lots' is no amount of memory like 60G"),
        ({'walltime': 'a day'}, 'walltime'),
        ({'work_dir': 'scratch'}, 'work_dir'),
        ({'label': 'a100'}, "AiiDA takes 'a100' for the beginning of a UUID"),
        ({'partiton': 'a100'}, "did you mean 'partition'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(OodalError, match=message):
        ComputerSettings.load(SLURM | changes)


def test_an_unknown_preset_names_those_there_are():
    result = invoke('computer', '--preset', 'v100', '--dry-run')
    assert result.exit_code == 1
    assert "no preset 'v100'; there are a100-slurm, local" in result.output


def test_the_command_that_made_a_computer_can_be_repeated(monkeypatch):
    from aiida_oodal.cli import setup_computer

    settings = ComputerSettings(
        **SLURM, modules=('cuda/12.4', 'gcc'), gres='', mpirun='srun -n 4', poll_interval=2, allow_h200=True
    )
    asked = []
    monkeypatch.setattr(setup_computer, 'make_computer', lambda preset, given, say: asked.append((preset, given)))
    words = shlex.split(setup_computer.describe_command('a100-slurm', settings))
    assert words[:2] == ['aiida-oodal', 'setup']
    result = invoke(*words[2:])
    assert result.exit_code == 0, result.output
    assert asked == [('a100-slurm', settings)]


def test_a_dry_run_shows_the_scripts_and_makes_nothing(aiida_profile):
    from aiida.orm import Computer, QueryBuilder

    before = QueryBuilder().append(Computer).count()
    result = invoke('computer', '--preset', 'a100-slurm', '--dry-run', '--module', 'cuda/12')
    assert result.exit_code == 0, result.output
    assert result.output.count('#SBATCH --gres=gpu:a100:1') == 5
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
        assert 'without ML-PACE: gamma is computed by the engine' in result.output
        assert 'the engine oodal-engine-' in result.output
    elsewhere = ['computer', '--preset', 'a100-slurm', '--label', 'again', '--work-dir', '/tmp']
    result = invoke(*elsewhere, *profile)
    assert result.exit_code == 1
    assert "computer 'again' exists with scheduler core.direct, and core.slurm is asked for" in result.output


def test_packages_of_lammps_are_read_from_its_help():
    text = (
        'OS: Linux\n\nInstalled packages:\n\nKSPACE MANYBODY \nML-PACE ML-SNAP \n\nList of individual style options\n'
    )
    assert lammps_packages(text) == ['KSPACE', 'MANYBODY', 'ML-PACE', 'ML-SNAP']
    assert lammps_packages('nothing of the kind') == []


def test_wal_is_for_good(tmp_path):
    from aiida_oodal.cli.setup_profile import enable_wal

    path = tmp_path / 'database.sqlite'
    said = []
    for _ in range(2):
        enable_wal(path, said.append)
    connection = sqlite3.connect(path)
    assert connection.execute('PRAGMA journal_mode').fetchone() == ('wal',)
    connection.close()
    assert said == ['SQLite keeps a write-ahead log (WAL)']


def test_addresses_of_services_are_checked(tmp_path):
    from aiida_oodal.cli.setup_profile import make_profile

    for url, message in (
        ('mysql://u:p@h/d', 'is no postgresql:// address'),
        ('postgresql://localhost/d', 'lacks user or database'),
        ('postgresql://u:p@h:port/d', 'is no postgresql:// address'),
    ):
        with pytest.raises(OodalError, match=message):
            make_profile('never', email='a@b', postgresql=url, rabbitmq=None, say=print)
    with pytest.raises(OodalError, match='RabbitMQ does not answer at localhost:1'):
        make_profile('never', email='a@b', postgresql=None, rabbitmq='amqp://localhost:1', say=print)
    assert not list(Path(tmp_path).iterdir())
