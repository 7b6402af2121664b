"""Where the repulsive core of a potential begins."""

from __future__ import annotations

from collections.abc import Mapping

from ase.data import atomic_numbers, covalent_radii

from aiida_oodal.engine.linear.pairs import Pair

#: Width of the transition from the fitted energy to the core, as a share of the distance at which it begins.
_TRANSITION = 0.1


def place_cores(distances: Mapping[Pair, float], share: float) -> dict[Pair, float]:
    """Choose for every pair of elements the distance at which the core begins.

    An atom has the fitted energy as long as all its neighbours are farther away, so that the fit is linear where there
    are data: the core begins below the shortest distance of the training data, and not above a share of the sum of the
    covalent radii, so that short bonds which the data do not have yet are left to the fit, and gamma warns of them.

    :param distances: the shortest of each pair in the training data, angstrom; infinite where the two never meet.
    :param share: of the sum of the covalent radii.
    :return: angstrom.
    """
    radii = {symbol: float(covalent_radii[atomic_numbers[symbol]]) for name in distances for symbol in name}
    return {name: min(share * (radii[name[0]] + radii[name[1]]), distance) for name, distance in distances.items()}


def core_settings(distance: float) -> dict[str, object]:
    """Return what pyace's block of a pair needs for a core.

    pyace's ``zbl``: an atom whose nearest neighbour is closer than ``r_in - delta_in`` has the energy of Ziegler,
    Biersack and Littmark (1985) with all its neighbours; up to ``r_in`` it goes over to the fitted one by a polynomial.
    B-projections, and so gamma, are not touched.

    :param distance: at which the core begins, angstrom.
    """
    return {
        'r_in': distance,
        'delta_in': _TRANSITION * distance,
        'core_rep_parameters': [1.0, 1.0],
        'inner_cutoff_type': 'zbl',
    }
