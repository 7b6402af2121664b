import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.label.offset import fit_offset


def make(symbols, energy, seed=0):
    positions = np.random.default_rng(seed).random((len(Atoms(symbols)), 3)) * 5
    return Atoms(symbols, positions=positions, cell=[6, 6, 6], pbc=True, info={'REF_energy': energy})


def test_structures_with_both_labels_give_the_offset_of_each_element():
    formulas = ['Al4', 'Al3Cu', 'Al2Cu2', 'Cu4']
    first = [make(formula, 10.0 * seed, seed) for seed, formula in enumerate(formulas)]
    second = [atoms.copy() for atoms in first]
    for atoms in second:
        atoms.info['REF_energy'] += -3.5 * (atoms.symbols == 'Al').sum() + 1.25 * (atoms.symbols == 'Cu').sum()
    offset = fit_offset([*first, make('Al8', 0.0, 9)], second)
    assert offset.per_atom == pytest.approx({'Al': -3.5, 'Cu': 1.25})
    assert offset.rms == pytest.approx(0.0, abs=1e-9)
    assert offset.n_common == 4
    assert str(offset).startswith('energies differ by Al -3.5000, Cu +1.2500 eV/atom (fitted on 4 structures')


def test_without_them_compositions_do():
    first = [make('Al4', -4 * 1.0, 1), make('Al2Cu2', -2 * 1.0 - 2 * 2.0, 2)]
    second = [make('Al4', -4 * 11.0, 3), make('Al8', -8 * 11.0, 4)]
    offset = fit_offset(first, second)
    assert offset.per_atom == pytest.approx({'Al': -10.0})
    assert offset.n_common == 0
    assert 'compositions alone' in str(offset)


def test_what_has_nothing_in_common_has_no_offset():
    assert fit_offset([make('Al4', 1.0)], [make('Cu4', 1.0)]) is None
    assert fit_offset([], [make('Cu4', 1.0)]) is None
