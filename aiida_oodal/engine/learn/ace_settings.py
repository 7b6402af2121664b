"""What can be chosen in an ACE fit, checked when a job is prepared: a typo costs seconds, not a night in the queue."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from aiida_oodal.engine.settings import Settings

_Orders = Annotated[tuple[int, ...], Field(min_length=1, max_length=6)]


class AceFitSettings(Settings):
    """Settings of a linear ACE potential and of its fit; ``model_dump(mode='json')`` is what the job file takes.

    Elements are not a setting: they are those of the training data.
    """

    TITLE: ClassVar[str] = 'ACE fit settings'

    number_of_functions: int = Field(60, ge=1, le=20000, description='Basis functions per element, at most.')
    cutoff: float = Field(6.0, gt=1.0, le=20.0, description='Cutoff of all pairs, angstrom.')
    cutoff_width: float = Field(0.01, gt=0.0, le=5.0, description='Width of the cutoff function, angstrom.')
    cutoff_function: Literal['cos', 'poly'] = Field('cos', description='Form of the cutoff function.')
    radial_basis: Literal['SBessel', 'ChebExpCos', 'ChebPow', 'ChebLinear'] = Field(
        'SBessel', description='Radial functions.'
    )
    radial_parameter: float = Field(5.25, gt=0.0, le=100.0, description='Parameter of the radial functions.')
    radial_functions_by_order: _Orders = Field(
        (15, 6, 4, 3), description='Largest radial index for body order 2, 3, ...'
    )
    angular_momentum_by_order: _Orders = Field(
        (0, 4, 3, 2), description='Largest angular momentum for body order 2, 3, ...'
    )
    spline_spacing: float = Field(0.001, gt=0.0, le=0.1, description='Bin of the radial spline tables, angstrom.')
    energy_weight: float = Field(
        30.0, ge=0.0, le=1e6, description='Weight of an energy per atom (eV) next to a force component (eV/angstrom).'
    )
    ridge: float = Field(1e-7, ge=0.0, le=1e3, description='Added to the squared residual: ridge * |coefficients|^2.')
    weights: Literal['full', 'mask', 'downweight'] = Field(
        'full',
        description='What force_mask means. full: nothing. mask: atoms outside the core and energies of structures '
        'that have such atoms weigh 0. downweight: they weigh "downweight". With mask and downweight only core atoms '
        'enter the active set.',
    )
    downweight: float = Field(0.1, gt=0.0, lt=1.0, description='Weight of buffer atoms where weights = downweight.')
    active_set_tolerance: float = Field(
        1.001, gt=1.0, le=2.0, description='MaxVol stops when no training environment has a larger gamma.'
    )
    active_set_iterations: int = Field(300, ge=1, le=100000, description='Largest number of MaxVol exchanges.')
    reference_energies: dict[str, float] = Field(
        default_factory=dict,
        description='Energy (eV) of one atom of each element, subtracted from the labels before the fit; 0 if absent.',
    )

    @field_validator('reference_energies')
    @classmethod
    def _known_elements(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = [symbol for symbol in value if symbol not in atomic_numbers]
        if unknown:
            raise ValueError(f'{", ".join(unknown)} is no element')
        return value

    @model_validator(mode='after')
    def _orders_match(self) -> Self:
        radial, angular = self.radial_functions_by_order, self.angular_momentum_by_order
        if len(radial) != len(angular):
            raise ValueError(
                f'radial_functions_by_order has {len(radial)} entries and angular_momentum_by_order {len(angular)}: '
                'one of each per body order is needed'
            )
        if min(radial) < 1 or min(angular) < 0 or angular[0] != 0:
            raise ValueError(
                f'radial_functions_by_order = {radial} must be at least 1, angular_momentum_by_order = {angular} at '
                'least 0 and its first entry exactly 0 (pairs have no angle)'
            )
        return self
