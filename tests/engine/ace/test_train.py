from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.engine import files
from aiida_oodal.engine.ace import train
from aiida_oodal.engine.ace.basis import import_pyace
from aiida_oodal.engine.ace.files import check_active_set, read_ace_header
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.structures import StructureSet

require('pyace')


@pytest.fixture
def job(tmp_path, aluminium, values):
    """Two training files, the second of masked clusters, and a validation file."""
    for atoms in aluminium[2:]:
        atoms.arrays['force_mask'] = (np.arange(32) < 8).astype(float)
    hot = aluminium[0].copy()
    hot.rattle(0.3, seed=1)
    StructureSet.from_atoms(aluminium[:2]).save(tmp_path / 'training_0.npz')
    StructureSet.from_atoms(aluminium[2:]).save(tmp_path / 'training_1.npz')
    StructureSet.from_atoms([label_structure(hot, EMT())]).save(tmp_path / 'validation.npz')
    return {
        'training': {'start': 'training_0.npz', 'round_1': 'training_1.npz'},
        'validation': 'validation.npz',
        'settings': values(weights='mask').plain(),
        'workers': 1,
    }


def run(job, folder):
    train.run_job(json.loads(json.dumps(job)), folder)
    return json.loads((folder / files.RESULTS_FILE).read_text())


def test_counts_and_errors_of_the_results(job, tmp_path, capsys):
    results = run(job, tmp_path)
    assert (results['elements'], results['cutoff']) == (['Al'], 4.5)
    assert results['n_environments'] == {'Al': 80}
    assert results['settings'] == job['settings']
    first, second = results['parts']['start'], results['parts']['round_1']
    assert (first['role'], first['n_atoms'], first['core_fraction'], first['n_energies']) == ('training', 64, 1, 2)
    assert (second['n_structures'], second['n_core_atoms'], second['core_fraction']) == (2, 16, 0.25)
    # A part is judged on all its labels, the whole on those that weighed something.
    assert second['n_energies'] == 2
    assert (results['training']['n_energies'], results['training']['by_element']['Al']['n_atoms']) == (2, 80)
    assert results['training']['n_structures'] == 4
    assert first['max_gamma'] <= 1.001
    assert results['training']['max_gamma'] == max(first['max_gamma'], second['max_gamma'])
    assert results['validation']['n_atoms'] == 32
    assert 'largest gamma' in capsys.readouterr().out


def test_errors_are_those_of_the_files_as_another_program_reads_them(job, tmp_path):
    results = run(job, tmp_path)
    calculator = import_pyace().PyACECalculator(str(tmp_path / files.BASIS_FILE))
    calculator.set_active_set(str(tmp_path / files.ACTIVE_SET_FILE))
    (hot,) = StructureSet.load(tmp_path / 'validation.npz')
    calculator.calculate(hot)
    deviation = calculator.results['forces'] - hot.arrays['REF_forces']
    judged = results['validation']
    assert judged['force_rmse'] == pytest.approx(1000 * np.sqrt(np.mean(deviation**2)))
    assert judged['energy_rmse'] == pytest.approx(
        1000 * abs(calculator.results['energy'] - hot.info['REF_energy']) / 32, rel=1e-6
    )
    assert judged['max_gamma'] == pytest.approx(calculator.results['gamma'].max(), rel=1e-9)
    tabulated = import_pyace().PyACECalculator(str(tmp_path / files.TABULATED_FILE))
    assert np.allclose(tabulated.get_forces(hot), calculator.results['forces'], atol=1e-6)


def test_the_files_agree_with_each_other(job, tmp_path):
    results = run(job, tmp_path)
    header = read_ace_header(tmp_path / files.BASIS_FILE)
    check_active_set(tmp_path / files.ACTIVE_SET_FILE, header)
    assert list(header.elements) == results['elements']
    assert header.number_of_functions == results['number_of_functions']
    assert header.cutoff == results['cutoff']
    with pytest.raises(OodalError, match='tabulated'):
        read_ace_header(tmp_path / files.TABULATED_FILE)


def test_the_header_of_an_alloy_counts_as_pyace_does(tmp_path, values):
    atoms = bulk('Al', 'fcc', a=3.9, cubic=True).repeat((2, 2, 2))
    atoms.symbols[:16] = 'Cu'
    atoms.rattle(0.2, seed=1)
    StructureSet.from_atoms([label_structure(atoms, EMT())]).save(tmp_path / 'training_0.npz')
    results = run(
        {'training': {'start': 'training_0.npz'}, 'settings': values(number_of_functions=7).plain()}, tmp_path
    )
    header = read_ace_header(tmp_path / files.BASIS_FILE)
    assert header.number_of_functions == results['number_of_functions']
    assert results['elements'] == ['Al', 'Cu']
    assert results['validation'] is None


def test_reference_energies_move_the_zero_and_nothing_else(job, tmp_path, aluminium):
    for name, structures in (('training_0.npz', aluminium[:2]), ('training_1.npz', aluminium[2:])):
        for atoms in structures:
            atoms.info['REF_energy'] -= 32 * 500.0
        StructureSet.from_atoms(structures).save(tmp_path / name)
    job['validation'] = None
    with pytest.raises(OodalError, match='give reference_energies'):
        run(job, tmp_path)
    job['settings']['reference_energies'] = {'Al': -500.0}
    assert run(job, tmp_path)['training']['energy_rmse'] < 50.0


def test_a_larger_fit_is_good_on_what_it_was_trained_on(tmp_path, values):
    structures = [label_structure(atoms, EMT()) for atoms in strained_crystals(count=4)]
    StructureSet.from_atoms(structures).save(tmp_path / 'training_0.npz')
    results = run(
        {
            'training': {'start': 'training_0.npz'},
            'settings': values(number_of_functions=40, cutoff=6.0, radial_functions_by_order=(15, 6, 3)).plain(),
        },
        tmp_path,
    )
    assert results['training']['force_rmse'] < 5.0
    assert results['training']['energy_rmse'] < 0.5


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'training': {}}, "lacks 'training'"),
        ({'training': ['training_0.npz']}, '"training" must give different files by label'),
        ({'training': {'a': 'training_0.npz', 'b': 'training_0.npz'}}, '"training" must give different files'),
        ({'anchors': {'start': 'training_0.npz'}}, 'start: each training set and anchor needs a label of its own'),
        ({'settings': None}, "lacks 'settings'"),
        ({'settings': {'rigde': 1.0}}, 'ACE fit settings: this engine does not know rigde'),
        ({'training': {'a': 'none.npz'}}, r'none\.npz cannot be read'),
        ({'validation': 'none.npz'}, r'none\.npz cannot be read'),
        ({'validation': 'copper.npz'}, r'copper\.npz has Cu, which the training data \(Al\) lack'),
        (
            {'training': {'a': 'training_0.npz', 'b': 'unlabelled.npz'}},
            r'unlabelled\.npz: structure 0 has no REF_energy',
        ),
        ({'training': {'a': 'touching.npz'}}, r'touching\.npz: structure 1: pyace cannot evaluate 32 atoms'),
        ({'training': {'a': 'empty.npz'}}, r'empty\.npz: the set is empty'),
    ],
)
def test_wrong_jobs_are_explained(job, tmp_path, aluminium, change, message):
    aluminium[1].positions[1] = aluminium[1].positions[0]
    StructureSet.from_atoms(aluminium).save(tmp_path / 'touching.npz')
    StructureSet.from_atoms([label_structure(bulk('Cu'), EMT())]).save(tmp_path / 'copper.npz')
    StructureSet.from_atoms([bulk('Al')]).save(tmp_path / 'unlabelled.npz')
    StructureSet.from_atoms([]).save(tmp_path / 'empty.npz')
    with pytest.raises(OodalError, match=message):
        run(job | change, tmp_path)
    assert not (tmp_path / files.BASIS_FILE).exists()


def test_a_part_that_weighs_more_is_learned_better(job, tmp_path, values):
    def error(part_weights):
        job['settings'] = values(weights='full', part_weights=part_weights).plain()
        return {name: part['force_rmse'] for name, part in run(job, tmp_path)['parts'].items()}

    equal, shifted = error({}), error({'start': 30.0})
    assert shifted['start'] < equal['start']
    assert shifted['round_1'] > equal['round_1']


def test_the_weight_of_a_part_that_is_not_there_is_refused(job, tmp_path, values):
    job['settings'] = values(part_weights={'strat': 2.0}).plain()
    with pytest.raises(OodalError, match="part_weights: 'strat' is no training set; there are round_1, start"):
        run(job, tmp_path)


def test_a_pack_is_fitted_and_judged_as_its_sets_are(job, tmp_path, aluminium):
    job['settings'] = {**job['settings'], 'part_weights': {'round_1': 4.0}}
    apart = run(job, tmp_path)
    for row, atoms in enumerate(aluminium):
        atoms.info['labelled_set'] = 'start' if row < 2 else 'round_1'
    StructureSet.from_atoms(aluminium).save(tmp_path / 'pack.npz')
    job['training'] = {'pack': 'pack.npz'}
    packed = run(job, tmp_path)
    assert list(packed['parts']) == ['start', 'round_1', 'validation']
    for name, part in apart['parts'].items():
        assert packed['parts'][name]['force_rmse'] == pytest.approx(part['force_rmse'], rel=1e-6)
        assert packed['parts'][name]['role'] == part['role']
    job['training'] = {'pack': 'pack.npz', 'start': 'training_0.npz'}
    with pytest.raises(OodalError, match='start: each training set and anchor needs a label of its own'):
        train.run_job(job, tmp_path)
