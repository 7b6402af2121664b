"""Launch scripts for a user's own system: what they build is accepted as it is."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from aiida.cmdline.commands.cmd_run import run as verdi_run
from aiida.orm import Computer
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.operations.campaign.begin import _repeats

ROOT = Path(__file__).parents[2]


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ['init', *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return ' '.join(result.output.split())


def build(script, monkeypatch):
    """Return what a script submits by ``verdi run`` from another folder, after the checks of a submission."""
    made = []

    def keep(_, make):
        made.append(make())
        return SimpleNamespace(pk=1)

    monkeypatch.setattr('aiida_oodal.operations.launch.submit_once', keep)
    done = CliRunner().invoke(verdi_run, [str(script)], catch_exceptions=False)
    assert 'follow it with `aiida-oodal watch 1`' in done.output
    (builder,) = made
    ports = builder.process_class.spec().inputs
    assert ports.validate(ports.pre_process(ports.serialize(builder._inputs(prune=True)))) is None
    return builder


def test_the_script_of_an_element_is_accepted_and_formatted(tmp_path, localhost, monkeypatch):
    says = invoke(tmp_path / 'al', '--element', 'Al', '--labeller', 'emt', '--computer', localhost.label)
    script = tmp_path / 'al' / 'launch.py'
    assert f'aiida-oodal campaign launch {script}' in says
    builder = build(script, monkeypatch)
    assert set(builder.walkers) == {'to_600K', 'to_1200K'}
    assert builder.walkers['to_600K']['settings']['temperature'] == [300, 600]
    (start,) = builder.walkers['to_600K']['structure']
    assert len(start) == 256
    initial = list(builder.initial.structures)
    assert [len(atoms) for atoms in initial] == [32] * 20 + [1]
    assert builder.budget.get_dict() == {'labels': 220}
    assert builder.label['workflow'].value == 'oodal.label.ase'
    ruff = [sys.executable, '-m', 'ruff', 'check', '--config', str(ROOT / 'pyproject.toml'), str(script)]
    done = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_labels_of_ones_own_take_the_place_of_new_ones(tmp_path, localhost, monkeypatch):
    frames = []
    for seed in range(6):
        atoms = bulk('Cu', cubic=True).repeat(2)
        atoms.rattle(0.05, seed=seed)
        frames.append(label_structure(atoms, make_calculator({'calculator': 'emt'})))
    ase.io.write(tmp_path / 'mine.extxyz', frames)
    ase.io.write(tmp_path / 'judges.extxyz', frames[:2])
    ase.io.write(tmp_path / 'slab.cif', fcc111('Cu', (3, 3, 4), vacuum=8.0, periodic=True))
    files = ('--labelled', tmp_path / 'mine.extxyz', '--validation', tmp_path / 'judges.extxyz')
    arguments = ('--structure', tmp_path / 'slab.cif', *files, '--temperature', 900)
    invoke(tmp_path / 'cu', *arguments, '--labeller', 'emt', '--computer', localhost.label, '--protocol', 'quick')
    builder = build(tmp_path / 'cu' / 'launch.py', monkeypatch)
    assert set(builder.walkers) == {'to_900K'}
    assert builder.initial.labels['labels'].n_structures == 6
    assert builder.initial.get('structures') is None
    assert builder.validation.n_structures == 2


@pytest.mark.parametrize('labeller', ['xtb', 'pw', 'outside', 'gpaw:GPAW'])
def test_every_labeller_gives_a_script_that_python_reads(tmp_path, labeller):
    invoke(tmp_path / 'si', '--element', 'Si', '--labeller', labeller, '--computer', 'cluster')
    text = (tmp_path / 'si' / 'launch.py').read_text()
    compile(text, 'launch.py', 'exec')
    assert ("load_code('pw.x@cluster')" in text) == (labeller == 'pw')


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ((), 'give --structure FILE or --element SYMBOL'),
        (('--element', 'Xx'), 'ASE knows no cubic crystal'),
        (('--element', 'Ag', '--element', 'Cu'), 'or begin with examples/launch_alloy.py'),
        (('--element', 'Al', '--labeller', 'pww'), "labeller 'pww' is not known; did you mean 'pw'?"),
        (('--element', 'Al', '--protocol', 'fast'), "there is no protocol 'fast'"),
        (('--element', 'Fe'), 'emt does not know Fe, only Al, '),
        (('--element', 'Al', '--validation', 'water.xyz'), 'water.xyz: no structure has REF_energy and REF_forces'),
        (('--structure', 'water.xyz'), 'water.xyz: no axis is periodic: give a cell'),
        (('--element', 'Al', '--labelled', 'water.xyz'), 'water.xyz: no structure has REF_energy and REF_forces'),
    ],
)
def test_what_no_script_can_be_written_for_is_refused(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    ase.io.write('water.xyz', molecule('H2O'))
    defaults = () if '--labeller' in given else ('--labeller', 'emt')
    assert message in invoke('new', *given, *defaults, '--computer', 'localhost', code=1)
    assert not Path('new').exists()


def test_a_script_is_never_written_over(tmp_path):
    arguments = ('--element', 'Al', '--labeller', 'emt', '--computer', 'localhost')
    invoke(tmp_path, *arguments)
    (tmp_path / 'launch.py').write_text('mine')
    assert 'is there already: give another folder' in invoke(tmp_path, *arguments, code=1)
    assert (tmp_path / 'launch.py').read_text() == 'mine'


def test_cells_are_repeated_by_the_distance_of_their_faces():
    skewed = Atoms('Al', cell=[[4, 0, 0], [3.9, 4, 0], [0, 0, 30]], pbc=True)
    assert _repeats(skewed, 8.0) == (3, 2, 1)
    assert _repeats(Atoms('Al', cell=[4, 4, 20], pbc=[True, True, False]), 16.0) == (4, 4, 1)
    assert np.prod(_repeats(bulk('Al', cubic=True), 16.0, most=64)) * 4 <= 64


def test_computers_need_not_be_there_yet(tmp_path):
    assert Computer.collection.find({'label': 'not made yet'}) == []
    invoke(tmp_path / 'x', '--element', 'Cu', '--labeller', 'emt', '--computer', 'not made yet')


def test_a_file_of_several_structures_is_refused_with_the_command_that_takes_one(tmp_path, localhost):
    path = tmp_path / 'run.extxyz'
    ase.io.write(path, [bulk('Cu', cubic=True, a=a) for a in (3.6, 3.7)])
    given = ('--labeller', 'emt', '--computer', localhost.label)
    said = invoke(tmp_path / 'cu', '--structure', path, *given, code=1)
    assert (
        f'{path}: there are 2 structures in it, and walkers begin with one. Write each that you want to a file' in said
    )
    assert not (tmp_path / 'cu').exists()
    command = said.rpartition(': ')[2].split()
    done = subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], cwd=tmp_path, check=False)
    assert done.returncode == 0
    invoke(tmp_path / 'cu', '--structure', tmp_path / 'start.extxyz', *given)


def test_an_alloy_and_its_elements_have_walkers_and_first_structures_each(tmp_path, localhost, monkeypatch):
    alloy = bulk('Ag', cubic=True)
    alloy.symbols[:2] = 'Pd'
    for name in ('one/POSCAR', 'two/POSCAR', '3 layers.cif'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        ase.io.write(tmp_path / name, alloy)
    files = [part for name in ('one/POSCAR', 'two/POSCAR', '3 layers.cif') for part in ('--structure', tmp_path / name)]
    given = ('--element', 'Ag', '--temperature', 800, '--temperature', 1500, '--labeller', 'emt')
    invoke(tmp_path / 'agpd', *files, *given, '--computer', localhost.label)
    builder = build(tmp_path / 'agpd' / 'launch.py', monkeypatch)
    names = ('POSCAR', 'POSCAR_2', 'structure_3_layers', 'Ag')
    assert set(builder.walkers) == {f'{name}_to_{kelvin}K' for name in names for kelvin in (800, 1500)}
    (silver,), (mixed,) = (builder.walkers[f'{name}_to_800K']['structure'] for name in ('Ag', 'POSCAR'))
    assert set(silver.symbols) == {'Ag'}
    assert set(mixed.symbols) == {'Ag', 'Pd'}
    elements = [''.join(sorted(set(atoms.symbols))) for atoms in builder.initial.structures if len(atoms) > 1]
    assert (elements.count('Ag'), elements.count('AgPd'), len(elements)) == (20, 120, 140)
    assert [str(atoms.symbols) for atoms in builder.initial.structures if len(atoms) == 1] == ['Ag', 'Pd']
    assert builder.budget.get_dict() == {'labels': 340}


@pytest.mark.parametrize('typed', ['emt\nmy_cluster\n', '\n\n'])
def test_at_a_terminal_labeller_and_computer_are_asked_for(tmp_path, typed):
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    command = [Path(sys.executable).parent / 'aiida-oodal', 'init', tmp_path / 'al', '--element', 'Al']
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, check=True)
    os.close(ours)
    os.close(theirs)
    text = (tmp_path / 'al' / 'launch.py').read_text()
    assert 'Computer [localhost]: ' in done.stdout
    assert ("COMPUTER = 'my_cluster'" in text) == typed.startswith('emt')
    assert ("LABELLER = 'oodal.label.pw'" in text) != typed.startswith('emt')


def test_without_a_terminal_nothing_is_asked(tmp_path):
    command = [Path(sys.executable).parent / 'aiida-oodal', 'init', tmp_path / 'al', '--element', 'Al']
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout.startswith('Wrote ')
    assert 'labels by pw, jobs on localhost' in done.stdout
    assert "COMPUTER = 'localhost'" in (tmp_path / 'al' / 'launch.py').read_text()


def test_what_has_a_surface_runs_at_constant_volume(tmp_path, localhost, monkeypatch):
    slab = fcc111('Cu', (2, 2, 4), vacuum=8.0)
    slab.info = {}
    slab.pbc = (True, True, False)
    ase.io.write(tmp_path / 'slab.extxyz', slab)
    given = ('--element', 'Cu', '--labeller', 'emt', '--computer', localhost.label, '--temperature', 900)
    invoke(tmp_path / 'cu', '--structure', tmp_path / 'slab.extxyz', *given)
    builder = build(tmp_path / 'cu' / 'launch.py', monkeypatch)
    ensembles = {name: walker['settings'].get_dict()['ensemble'] for name, walker in builder.walkers.items()}
    assert ensembles == {'slab_to_900K': 'nvt', 'Cu_to_900K': 'npt'}
