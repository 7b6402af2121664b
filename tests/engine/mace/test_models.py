from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from machine import COMMITTEE, needs

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.models import check_ensemble, open_model, pick_device

TOLERANCE = {'float32': 1e-6, 'float64': 1e-10}
IRREPS = ['4x0e', '4x0e+4x1o', '4x0e+4x1o+4x2e']


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('irreps', IRREPS)
def test_latents_are_those_of_get_descriptors(irreps, dtype, untrained, calculator, ethanol, ice):
    path = untrained(irreps)
    model, reference = open_model(path, precision=dtype), calculator(path, dtype)
    structures = [ethanol, ice, ethanol[:1]]
    batch = merge_graphs([build_graph(atoms, model.info.cutoff) for atoms in structures])

    latents = model.evaluate(batch).latents

    expected = np.concatenate([reference.get_descriptors(atoms, invariants_only=True) for atoms in structures])
    assert latents.dtype == dtype
    assert latents.shape == (18, 8)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(latents, expected, rtol=0, atol=TOLERANCE[dtype])


def test_layers_are_chosen(untrained, calculator, ice):
    path = untrained('4x0e+4x1o')
    batch = merge_graphs([build_graph(ice, 3.0)])
    first, last, both = (open_model(path, layers=layers).evaluate(batch).latents for layers in ('first', 'last', 'all'))
    descriptors = calculator(path, 'float64').get_descriptors(ice, invariants_only=True, num_layers=1)
    np.testing.assert_allclose(first, descriptors, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(both, np.hstack([first, last]))


@pytest.mark.parametrize('kind', ['MACE', 'ScaleShiftMACE'])
def test_energies_and_forces_are_those_of_the_calculator(kind, untrained, calculator, ethanol, ice):
    path = untrained('4x0e', kind)
    reference = calculator(path, 'float64')
    batch = merge_graphs([build_graph(atoms, 3.0) for atoms in (ethanol, ice, ethanol[:1])])

    evaluation = open_model(path).evaluate(batch, forces=True)

    expected = [reference.get_potential_energy(atoms) for atoms in (ethanol, ice, ethanol[:1])]
    np.testing.assert_allclose(evaluation.energies, expected, rtol=0, atol=1e-9)
    forces = np.concatenate([reference.get_forces(atoms) for atoms in (ethanol, ice, ethanol[:1])])
    assert np.abs(forces).max() > 0.01
    np.testing.assert_allclose(evaluation.forces, forces, rtol=0, atol=1e-10)
    assert open_model(path).evaluate(batch).forces is None


def test_atoms_without_neighbours_feel_no_force(untrained, ethanol):
    evaluation = open_model(untrained()).evaluate(merge_graphs([build_graph(ethanol[:1], 3.0)]), forces=True)
    assert evaluation.forces.tolist() == [[0.0, 0.0, 0.0]]


def test_isolated_atoms_do_not_cost_single_precision_its_digits(untrained, ice):
    # total energies are near -10,000 eV here, where neighbouring float32 numbers are 1e-3 eV apart
    path = untrained()
    batch = merge_graphs([build_graph(ice, 3.0)])
    single, double = (open_model(path, precision=each).evaluate(batch).energies for each in ('float32', 'float64'))
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-4)


def test_a_head_is_chosen(untrained, calculator, ethanol):
    path = untrained('4x0e', heads=('dft', 'xtb'))
    batch = merge_graphs([build_graph(ethanol, 3.0)])
    energies = {}
    for head in ('dft', 'xtb'):
        energies[head] = open_model(path, head=head).evaluate(batch).energies[0]
        assert energies[head] == pytest.approx(calculator(path, 'float64', head=head).get_potential_energy(ethanol))
    assert abs(energies['dft'] - energies['xtb']) > 1e-6
    for head in (None, 'mp2'):
        with pytest.raises(OodalError, match=r'has the heads dft, xtb, .*: set `head` to the one whose energies'):
            open_model(path, head=head)


def test_a_model_describes_itself(alcu_models):
    info = open_model(alcu_models['w1'], label='w1').info
    assert info.elements == ('Al', 'Cu')
    assert info.cutoff == 4.2
    assert info.layout == ('16x0e', '16x0e')
    assert info.invariants == (16, 16)
    assert (info.kind, info.dtype, info.heads) == ('ScaleShiftMACE', 'float32', ('Default',))
    assert len(info.sha256) == 64
    assert info.n_parameters > 1000


def test_files_that_are_no_model_are_refused(tmp_path, alcu_models):
    import torch

    content = alcu_models['w1'].read_bytes()
    files = {'text': b'not a model', 'cut': content[: len(content) // 2], 'empty': b''}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(OodalError, match=f'{name} cannot be opened as a MACE model .* mace_run_train wrote'):
            open_model(tmp_path / name)
    torch.save({'weights': torch.zeros(2)}, tmp_path / 'checkpoint.pt')
    with pytest.raises(OodalError, match='holds a dict, not a MACE'):
        open_model(tmp_path / 'checkpoint.pt')
    with pytest.raises(OodalError, match='does not exist'):
        open_model(tmp_path / 'absent.model')


def test_a_compiled_model_is_refused(tmp_path):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / 'compiled.model')
    with pytest.raises(OodalError, match='compiled'):
        open_model(tmp_path / 'compiled.model')


def test_a_missing_gpu_is_named():
    import torch

    if torch.cuda.is_available():
        assert pick_device('auto') == 'cuda'
        return
    assert pick_device('auto') == 'cpu'
    with pytest.raises(OodalError, match='torch sees no GPU'):
        pick_device('cuda')


@needs('committee')
def test_a_committee_of_mace_0_3_6_runs(calculator):
    from ase.io import read

    paths = sorted((COMMITTEE).glob('*.model'))
    atoms = read(COMMITTEE / 'mace02_md_100_xtb.xyz', 0)
    models = {path.stem: open_model(path, label=path.stem) for path in paths}
    check_ensemble({label: model.info for label, model in models.items()})
    batch = merge_graphs([build_graph(atoms, models[paths[0].stem].info.cutoff)])
    for path in paths:
        latents = models[path.stem].evaluate(batch).latents
        np.testing.assert_allclose(latents, calculator(path, 'float64').get_descriptors(atoms), rtol=0, atol=1e-10)


def change(path: Path, target: Path, **attributes) -> Path:
    """Save a model with other attributes; None takes one away."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        open_model(path)  # mace before e3nn
        module = torch.load(path, weights_only=False)
        for name, value in attributes.items():
            delattr(module, name)
            if value is not None:
                setattr(module, name, value)
        torch.save(module, target)
    return target


def test_a_model_of_an_older_version_is_read(untrained, ethanol, tmp_path):
    path = untrained()
    older = change(path, tmp_path / 'older.model', atomic_numbers=[1, 6, 8], heads=None)
    batch = merge_graphs([build_graph(ethanol, 3.0)])
    old, new = open_model(older), open_model(path)
    assert old.info.elements == ('H', 'C', 'O')
    np.testing.assert_array_equal(old.evaluate(batch).latents, new.evaluate(batch).latents)


def test_a_model_that_cannot_be_evaluated_here_says_why_before_the_work_begins(untrained, tmp_path):
    older = change(untrained(), tmp_path / 'older.model', spherical_harmonics=None)
    message = r'older\.model cannot be evaluated by mace-torch \d.*AttributeError.*spherical_harmonics.*older version'
    with pytest.raises(OodalError, match=message):
        open_model(older)
