"""Presets of computers: nothing here asks a machine."""

import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from aiida_oodal.calculations.job.engine_job import EngineCalculation
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.presets import (
    ComputerSettings,
    default_work_dir,
    find_waste,
    list_presets,
    memory_kb,
    render_preset,
    render_script,
)

SLURM = {'label': 'cluster', 'host': 'login.cluster', 'work_dir': '/scratch/{username}/aiida'}


def test_jobs_of_this_machine_run_beside_what_aiida_keeps(monkeypatch, tmp_path):
    monkeypatch.setenv('AIIDA_PATH', f'{tmp_path}{os.pathsep}/elsewhere')
    assert default_work_dir('localhost') == str(tmp_path / 'aiida_run')
    monkeypatch.delenv('AIIDA_PATH')
    assert default_work_dir('localhost') == str(Path.home() / 'aiida_run')
    assert default_work_dir('login.cluster') is None


def test_every_preset_renders():
    assert list_presets() == ['a100-slurm', 'local']
    for preset in list_presets():
        values = render_preset(
            preset, ComputerSettings(label='here', work_dir='/tmp/run', conda='mace', modules=('cuda',))
        )
        assert values['computer']['label'] == 'here'
        # What the daemon has there goes first, or it would take away what modules set.
        text = values['computer']['prepend_text']
        assert text.startswith('unset PYTHONPATH PYTHONHOME\nmodule load cuda\n')
        assert 'conda activate mace\n' in text


def test_a_cluster_is_reached_by_ssh_and_this_machine_is_not():
    assert render_preset('a100-slurm', ComputerSettings(**SLURM))['computer']['transport'] == 'core.ssh_async'
    here = render_preset('a100-slurm', ComputerSettings(**SLURM | {'host': 'localhost'}))
    assert here['computer']['transport'] == 'core.local'


def test_embedding_jobs_ask_for_one_card_and_sixty_gigabytes():
    script = render_script('a100-slurm', ComputerSettings(**SLURM, account='mat-42', walltime='2:30:00'), 'latents')
    for line in ('--partition=a100', '--mem=61440', '--gres=gpu:a100:1', '--time=02:30:00', '--account=mat-42'):
        assert f'#SBATCH {line}\n' in script
    ended = 'echo "oodal-end $(date +%s)"\ntouch script.end'
    assert script.strip().endswith(f"'./oodal-engine' 'latents' 'job.json'  > 'engine.out'\n\n{ended}")


def test_what_needs_no_card_goes_where_there_is_none():
    options = render_preset('a100-slurm', ComputerSettings(**SLURM, cpu_partition='cpu'))['options']
    assert options['latents']['queue_name'] == options['train_mace']['queue_name'] == 'a100'
    for process in set(options) - {'latents', 'train_mace'}:
        assert options[process] == {'queue_name': 'cpu', 'max_memory_kb': 8 * 1024**2, 'max_wallclock_seconds': 86400}


def test_values_cannot_break_out_of_the_template():
    settings = ComputerSettings(**SLURM, account='a"b', venv='/my envs/x', mpirun="srun --mpi=pmi2 'x'")
    values = render_preset('a100-slurm', settings)
    assert values['options']['md']['account'] == 'a"b'
    assert ". '/my envs/x'/bin/activate" in values['computer']['prepend_text']
    assert values['computer']['mpirun_command'] == "srun --mpi=pmi2 'x'"


@pytest.mark.parametrize(('text', 'kilobytes'), [('60G', 62914560), ('512m', 524288), ('100k', 100), ('1T', 1024**3)])
def test_memory_as_for_sbatch(text, kilobytes):
    assert memory_kb(text) == kilobytes


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'memory': 'lots'}, "'lots' is no amount of memory like 60G"),
        ({'memory': '60'}, "'60' has no unit: write 60G or 60M"),
        ({'cpu_memory': '8'}, "'8' has no unit: write 8G or 8M"),
        ({'walltime': 'a day'}, 'walltime'),
        ({'work_dir': 'scratch'}, 'work_dir'),
        ({'label': 'a100'}, "AiiDA takes 'a100' for the beginning of a UUID"),
        ({'partiton': 'a100'}, "did you mean 'partition'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(OodalError, match=message):
        ComputerSettings.load(SLURM | changes)


def test_jobs_that_would_hold_a_card_for_nothing_are_told():
    waste = find_waste('a100-slurm', ComputerSettings(**SLURM))
    assert waste.startswith('md, carve_clusters, select_clusters, grade_snapshots, label, judge, reference_md, ')
    assert 'and yet every such job asks for gpu:a100:1' in waste
    assert waste.endswith('--cpu-partition')
    assert find_waste('a100-slurm', ComputerSettings(**SLURM, cpu_partition='cpu')) is None
    assert find_waste('a100-slurm', ComputerSettings(**SLURM, gres='')) is None
    assert find_waste('local', ComputerSettings(**SLURM)) is None


def test_every_job_of_the_engine_has_options():
    """A job that is not among them would go to the default partition without saying so."""
    points = entry_points(group='aiida.calculations')
    jobs = {point.name.removeprefix('oodal.') for point in points if point.name.startswith('oodal.') and is_job(point)}
    assert 'md' in jobs
    assert jobs == set(render_preset('a100-slurm', ComputerSettings(**SLURM))['options'])


def is_job(point):
    process = point.load()
    return isinstance(process, type) and issubclass(process, EngineCalculation)
