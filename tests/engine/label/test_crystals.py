from __future__ import annotations

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.crystals import strained_crystals


def test_the_default_is_thirty_cold_cells_of_32_aluminium_atoms():
    crystals = strained_crystals()
    assert [len(atoms) for atoms in crystals] == [32] * 30
    lengths = np.array([atoms.cell.lengths() for atoms in crystals])
    assert np.all((lengths >= 2 * 4.0 * 0.985) & (lengths <= 2 * 4.0 * 1.015))
    assert np.ptp(lengths) > 0.1
    for atoms in crystals:
        assert atoms.pbc.all()
        nearest = atoms.get_all_distances(mic=True)[0, 1:].min()
        assert 2.4 < nearest < 3.1


def test_a_seed_gives_the_same_structures_again():
    first, again, other = (strained_crystals(count=2, seed=seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1].positions, other[1].positions)


def test_without_strain_and_rattle_the_crystal_is_perfect():
    (atoms,) = strained_crystals('Cu', 'bcc', lattice_constant=2.9, count=1, repeat=(2, 2, 2), strain=0, rattle=(0, 0))
    assert atoms.get_chemical_formula() == 'Cu16'
    assert np.allclose(atoms.cell.lengths(), 5.8)
    assert np.allclose(np.sort(atoms.get_all_distances(mic=True)[0])[1], 2.9 * np.sqrt(3) / 2)


def test_displacements_have_the_asked_spread():
    perfect, rattled = (
        strained_crystals(count=1, repeat=(4, 4, 4), strain=0, rattle=(size, size))[0] for size in (0.0, 0.05)
    )
    assert np.std(rattled.positions - perfect.positions) == pytest.approx(0.05, rel=0.1)


def test_a_structure_without_cubic_cell_is_made_from_its_primitive_one():
    (atoms,) = strained_crystals('Mg', 'hcp', lattice_constant=3.2, count=1, repeat=(2, 2, 1))
    assert len(atoms) == 8


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'crystal': 'quasi'}, "cannot build 'Al' as 'quasi'"),
        ({'symbol': 'Xx'}, "cannot build 'Xx'"),
        ({'count': 0}, 'count = 0'),
        ({'strain': 0.5}, 'strain = 0.5'),
        ({'rattle': (0.2, 0.1)}, r'rattle = \(0.2, 0.1\)'),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(OodalError, match=message):
        strained_crystals(**arguments)
