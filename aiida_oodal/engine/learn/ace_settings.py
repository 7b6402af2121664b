"""What can be chosen in an ACE fit, checked when a job is prepared: a typo costs seconds, not a night in the queue."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

_Orders = Annotated[tuple[int, ...], Field(min_length=1, max_length=6)]


class AceFitSettings(BaseModel):
    """Settings of a linear ACE potential and of its fit; ``model_dump(mode='json')`` is what the job file takes.

    Elements are not a setting: they are those of the training data.
    """

    model_config = ConfigDict(frozen=True, extra='forbid', allow_inf_nan=False)

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


def validate_ace_settings(settings: Mapping[str, Any]) -> str | None:
    """Return what is wrong with settings (field, value, allowed range), or None if they are right."""
    try:
        AceFitSettings.model_validate(dict(settings))
    except ValidationError as error:
        return '; '.join(_explain(item) for item in error.errors(include_url=False))
    return None


def _explain(item: Any) -> str:
    """Turn one pydantic error into a sentence with the field, its value and what is allowed."""
    if not item['loc']:
        return str(item['msg']).removeprefix('Value error, ')
    name = str(item['loc'][0])
    if item['type'] == 'extra_forbidden':
        close = difflib.get_close_matches(name, AceFitSettings.model_fields, n=1)
        known = ', '.join(AceFitSettings.model_fields)
        return f'{name!r} is not a setting of the ACE fit; ' + (
            f'did you mean {close[0]!r}?' if close else f'there are: {known}'
        )
    where = '.'.join(str(part) for part in item['loc'])
    return f'{where} = {item["input"]!r}: {item["msg"].removeprefix("Value error, ")} ({allowed_range(name)})'


def allowed_range(name: str) -> str:
    """Describe what a field takes, from its own declaration: ``'float, > 1.0, <= 20.0'``."""
    field = AceFitSettings.model_fields[name]
    signs = {'gt': '>', 'ge': '>=', 'lt': '<', 'le': '<=', 'min_length': 'at least', 'max_length': 'at most'}
    limits = [
        f'{sign} {getattr(limit, attribute)}' + (' entries' if 'length' in attribute else '')
        for limit in field.metadata
        for attribute, sign in signs.items()
        if getattr(limit, attribute, None) is not None
    ]
    kind = getattr(field.annotation, '__name__', str(field.annotation)).removeprefix('typing.')
    if kind == 'Literal':
        kind = str(field.annotation).removeprefix('typing.Literal')
    return ', '.join(['allowed: ' + kind, *limits])
