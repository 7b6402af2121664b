"""Settings of an ACE fit: one frozen dataclass for the host, which checks it, and for the job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ase.data import atomic_numbers

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option

#: How strict :meth:`AceFitSettings.stricter` gets: weight of a part, functions per element.
_MOST_WEIGHT, _MOST_FUNCTIONS = 8.0, 1000


@dataclass(frozen=True)
class AceFitSettings(Options):
    """Settings of a linear ACE potential and of its fit.

    Elements are not a setting: they are those of the training data.
    """

    TITLE: ClassVar[str] = 'ACE fit settings'

    number_of_functions: int = option(
        60,
        'Largest number of basis functions per element. If the potential may grow, the number that it begins with.',
        ge=1,
        le=20000,
    )
    max_functions: int | None = option(
        None,
        'Basis functions per element that the potential may grow to. None, or fewer than it begins with: it does not '
        'grow.',
        ge=1,
        le=20000,
    )
    cutoff: float = option(
        5.5, 'Cutoff of all pairs, angstrom. If it may grow, the cutoff that it begins with.', gt=1.0, le=20.0
    )
    max_cutoff: float | None = option(
        None,
        'Cutoff that the potential may grow to, angstrom. None, or shorter than it begins with: it does not grow.',
        gt=1.0,
        le=20.0,
    )
    force_tolerance: float = option(
        0.008,
        'The potential grows while the RMSE of the forces it is fitted to is larger, eV/angstrom. Below it, more '
        'functions would only fit the noise in these data.',
        gt=0.0,
        le=10.0,
    )
    cutoff_width: float = option(0.01, 'Width of the cutoff function, angstrom.', gt=0.0, le=5.0)
    cutoff_function: Literal['cos', 'poly'] = option('cos', 'Form of the cutoff function.')
    radial_basis: Literal['SBessel', 'ChebExpCos', 'ChebPow', 'ChebLinear'] = option('SBessel', 'Radial functions.')
    radial_parameter: float = option(
        5.25, 'Parameter of the radial functions; SBessel and ChebLinear have none.', gt=0.0, le=100.0
    )
    radial_functions_by_order: tuple[int, ...] = option(
        (15, 6, 4, 3), 'Largest radial index for body order 2, 3, ...', min_length=1, max_length=6
    )
    angular_momentum_by_order: tuple[int, ...] = option(
        (0, 4, 3, 2), 'Largest angular momentum for body order 2, 3, ...', min_length=1, max_length=6
    )
    spline_spacing: float = option(0.001, 'Bin of the radial spline tables, angstrom.', gt=0.0, le=0.1)
    repulsion: Literal['none', 'zbl'] = option(
        'zbl',
        'Repulsive core. zbl: an atom whose nearest neighbour is closer than anything in the training data and than '
        '"repulsion_distance" has the energy of Ziegler, Biersack and Littmark instead of that of the fit.',
    )
    repulsion_distance: float = option(
        0.7, 'Where the core begins, as a share of the sum of two covalent radii.', gt=0.0, le=1.0
    )
    energy_weight: float = option(
        30.0, 'Weight of an energy per atom (eV) next to a force component (eV/angstrom).', ge=0.0, le=1e6
    )
    stress_weight: float = option(
        0.0,
        'Weight of a stress component (eV/angstrom^3) next to a force component (eV/angstrom). 0: stresses are not '
        'learned; what density a walker takes then follows from energies and forces of strained structures.',
        ge=0.0,
        le=1e6,
    )
    robust_force: float | None = option(
        4.0,
        'Forces F (eV/angstrom) weigh 1 / sqrt(1 + (F / robust_force)^2): large ones count by their relative error. '
        'None: all weigh 1.',
        gt=0.0,
        le=1e6,
    )
    ridge: float = option(1e-7, 'Added to the squared residual: ridge * |coefficients|^2.', ge=0.0, le=1e3)
    weights: Literal['full', 'mask', 'downweight'] = option(
        'full',
        'What force_mask means. full: atoms outside the core weigh "buffer_weight". mask: atoms outside the core, and '
        'energies and stresses of structures that have such atoms, weigh 0. downweight: they weigh "downweight". With '
        'mask and downweight only core atoms enter the active set.',
    )
    buffer_weight: float = option(
        0.3, 'Weight of the forces on atoms outside the core where weights = full.', gt=0.0, le=1.0
    )
    cluster_weight: float = option(
        0.5,
        'Weight of all labels of a structure with atoms outside the core where weights = full: clusters have new '
        'surroundings, which are not to displace what is known of whole structures.',
        gt=0.0,
        le=1.0,
    )
    downweight: float = option(0.1, 'Weight of buffer atoms where weights = downweight.', gt=0.0, lt=1.0)
    part_weights: dict[str, float] = option(
        ...,
        'What all labels of a training set weigh, by its label; those that are left out weigh 1.',
        factory=dict,
    )
    reference_energies: dict[str, float] = option(
        ...,
        'Energy (eV) of one free atom of each element, subtracted from the labels before the fit. Elements that are '
        'left out have that of an isolated atom in the training data, or what "fit_atom_energies" says.',
        factory=dict,
    )
    fit_atom_energies: bool = option(
        True,
        'Fit the atom energies of elements that have none from elsewhere, together with the coefficients. Otherwise '
        'they are those of the potential of the round before, or 0.',
    )
    unmet_pairs: Literal['refuse', 'accept'] = option(
        'refuse',
        'What happens where two elements are never within the cutoff of each other in the training data. accept: '
        'their functions have the coefficient 0, and gamma is large where the two meet.',
    )
    active_set_tolerance: float = option(
        1.001, 'MaxVol stops when no training environment has a larger gamma.', gt=1.0, le=2.0
    )
    active_set_iterations: int = option(300, 'Largest number of MaxVol exchanges.', ge=1, le=100000)
    rank_tolerance: float = option(
        1e-12,
        'Directions in which the environments spread less, relative to the direction in which they spread most, are '
        'projected out of the active set.',
        ge=1e-15,
        le=0.1,
    )

    def __post_init__(self) -> None:
        unknown = [symbol for symbol in self.reference_energies if symbol not in atomic_numbers]
        if unknown:
            raise OodalError(f'reference_energies: {", ".join(unknown)} is no element')
        if wrong := {label: weight for label, weight in self.part_weights.items() if not 0.0 < weight <= 1e3}:
            raise OodalError(f'part_weights = {wrong}: a weight must lie above 0 and at most at 1000')
        radial, angular = self.radial_functions_by_order, self.angular_momentum_by_order
        if len(radial) != len(angular):
            raise OodalError(
                f'radial_functions_by_order has {len(radial)} entries and angular_momentum_by_order {len(angular)}: '
                'one of each per body order is needed'
            )
        if min(radial) < 1 or min(angular) < 0 or angular[0] != 0:
            raise OodalError(
                f'radial_functions_by_order = {radial} must be at least 1, angular_momentum_by_order = {angular} at '
                'least 0 and its first entry exactly 0 (pairs have no angle)'
            )

    def stricter(self, parts: Iterable[str]) -> AceFitSettings | None:
        """Return settings with which a potential forgets less, or None if the limits are reached.

        The weights of the given sets are doubled, to 8 at most, and the potential may have 1.5 times as many functions,
        1000 at most.

        :param parts: labels of the training sets that got worse; if it is empty, only the number of functions changes.
        """
        weights = {label: min(2.0 * self.part_weights.get(label, 1.0), _MOST_WEIGHT) for label in parts}
        most = max(self.max_functions or 0, self.number_of_functions)
        functions = max(most, min(most + most // 2, _MOST_FUNCTIONS))
        changed = replace(self, part_weights={**self.part_weights, **weights}, max_functions=functions)
        return None if changed == replace(self, max_functions=most) else changed

    @property
    def largest_cutoff(self) -> float:
        """Cutoff that the potential may have in the end, angstrom."""
        return max(self.max_cutoff or 0.0, self.cutoff)

    def with_form(self, number_of_functions: int, cutoff: float) -> AceFitSettings:
        """Return the same for a potential of another size, which does not grow."""
        return replace(
            self, number_of_functions=number_of_functions, cutoff=cutoff, max_functions=None, max_cutoff=None
        )
