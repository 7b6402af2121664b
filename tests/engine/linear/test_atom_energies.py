from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.atom_energies import find_atom_energies, is_isolated
from aiida_oodal.engine.linear.targets import make_target

CUTOFF = 4.5


@pytest.fixture
def targets(values):
    """Return a function that makes targets of structures."""
    return lambda structures, **changes: [
        make_target(atoms, values(**changes), f'structure {index}') for index, atoms in enumerate(structures)
    ]


def free(symbol, energy, **cell):
    atoms = Atoms(symbol, **cell)
    atoms.info['REF_energy'], atoms.arrays['REF_forces'] = energy, np.zeros((len(atoms), 3))
    return atoms


@pytest.mark.parametrize(
    ('cell', 'isolated'),
    [
        ({}, True),
        ({'cell': [10, 10, 10], 'pbc': True}, True),
        ({'cell': [10, 10, 4.4], 'pbc': True}, False),
        ({'cell': [10, 10, 4.4], 'pbc': (True, True, False)}, True),
    ],
)
def test_an_atom_that_sees_its_own_image_is_not_isolated(targets, cell, isolated):
    (target,) = targets([free('Al', 1.0, **cell)])
    assert is_isolated(target, CUTOFF) is isolated


def test_what_is_given_comes_before_isolated_atoms_a_fit_and_what_was_learned(targets):
    structures = [free('Al', -1.0), free('CuNiAg', -9.0, positions=[[0, 0, 0], [2, 0, 0], [0, 2, 0]])]
    known = {'given': {'Ag': -3.0}, 'learned': {'Al': 7.0, 'Cu': -2.0, 'Ag': 7.0}}
    energies = find_atom_energies(targets(structures), CUTOFF, **known)
    assert energies.values == {'Ag': -3.0, 'Al': -1.0, 'Cu': -2.0, 'Ni': 0.0}
    assert energies.sources == {'Ag': 'given', 'Al': 'isolated', 'Cu': 'learned', 'Ni': 'zero'}
    energies = find_atom_energies(targets(structures), CUTOFF, **known, fit=True)
    assert energies.sources == {'Ag': 'given', 'Al': 'isolated', 'Cu': 'fitted', 'Ni': 'fitted'}
    assert energies.fitted == ('Cu', 'Ni')
    # Two energies per atom, for one element that was learned and one that was not: -9 = -3 - 2 + Ni.
    assert energies.values['Ni'] == pytest.approx(-4.0)


def test_two_isolated_atoms_that_contradict_each_other_are_named(targets):
    with pytest.raises(OodalError, match=r'structure 0 and structure 1 are both isolated Al atoms, of 1 and 2 eV'):
        find_atom_energies(targets([free('Al', 1.0), free('Al', 2.0)]), CUTOFF, given={})
    with pytest.raises(OodalError, match=r'structure 0 is an isolated Al atom of 1 eV, and reference_energies gives'):
        find_atom_energies(targets([free('Al', 1.0)]), CUTOFF, given={'Al': 3.0})


def test_total_energies_are_refused_and_the_proposal_mends_them(aluminium, targets):
    for atoms in aluminium:
        atoms.symbols[:8] = 'Cu'
        atoms.info['REF_energy'] += 24 * -50.0 + 8 * -1000.0
    # Two compositions, so that the energies of both elements can be told apart.
    aluminium[0].symbols[:8] = 'Al'
    aluminium[0].info['REF_energy'] += 8 * 950.0
    with pytest.raises(OodalError, match=r'typically 287.* eV per atom') as raised:
        find_atom_energies(targets(aluminium), CUTOFF, given={})
    proposed = {'Al': -49.9, 'Cu': -999.9}
    for symbol, energy in proposed.items():
        assert f"'{symbol}': {energy:.1f}"[:-1] in str(raised.value)
    find_atom_energies(targets(aluminium), CUTOFF, given=proposed)
    fitted = find_atom_energies(targets(aluminium), CUTOFF, given={}, fit=True)
    assert fitted.values == {symbol: pytest.approx(energy, abs=0.2) for symbol, energy in proposed.items()}


def test_what_data_of_one_composition_left_open_is_found_when_there_are_others(aluminium, targets):
    for atoms in aluminium:
        atoms.symbols[:8] = 'Cu'
        atoms.info['REF_energy'] += 24 * -50.0 + 8 * -1000.0
    arbitrary = {'Al': 300.0, 'Cu': -600.0}  # as a fit to one composition may leave them
    known = {'given': {}, 'learned': arbitrary}
    aluminium[0].symbols[:8] = 'Al'
    aluminium[0].info['REF_energy'] += 8 * 950.0
    found = find_atom_energies(targets(aluminium), CUTOFF, **known, fit=True)
    assert found.values == {'Al': pytest.approx(-49.9, abs=0.2), 'Cu': pytest.approx(-999.9, abs=0.2)}
    # what is given stays, and a fit that is not asked for is not made
    with pytest.raises(OodalError, match='are total energies'):
        find_atom_energies(targets(aluminium), CUTOFF, **known)
    half = find_atom_energies(targets(aluminium), CUTOFF, given={'Al': -49.9}, learned=arbitrary, fit=True)
    assert half.values == {'Al': -49.9, 'Cu': pytest.approx(-999.9, abs=0.5)}


def test_one_wild_cluster_does_not_cast_doubt_on_all_energies(aluminium, targets):
    aluminium[0].info['REF_energy'] = 1e6
    find_atom_energies(targets(aluminium), CUTOFF, given={})


def test_energies_that_weigh_nothing_do_not_matter(aluminium, targets):
    for atoms in aluminium:
        atoms.info['REF_energy'] = -1e6
        atoms.arrays['force_mask'] = np.zeros(32)
    find_atom_energies(targets(aluminium, weights='mask'), CUTOFF, given={})
