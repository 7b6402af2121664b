"""Settings of an ensemble that drives MD, checked when a job is prepared."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from aiida_oodal.engine.ood.calibration import check_level
from aiida_oodal.engine.settings import Settings

__all__ = ('EnsembleSettings',)


class EnsembleSettings(Settings):
    """How an ensemble gives forces and gamma; ``model_dump(mode='json')`` is what the job file takes."""

    TITLE: ClassVar[str] = 'ensemble settings'

    forces: str | None = Field(
        None,
        min_length=1,
        description='Label of the model that gives forces; None: the first by label. mean: the mean over all models, '
        'which needs the gradients of all in every step and costs about as many times more as there are models.',
    )
    precision: Literal['float32', 'float64'] | None = Field(
        None, description='Floating point type of the evaluation. None: that of each model.'
    )
    device: Literal['auto', 'cpu', 'cuda'] = Field('auto', description='Where models run; auto: a GPU if there is one.')
    layers: Literal['all', 'last', 'first'] = Field(
        'all', description='Interaction layers of the latents; the same as for the reference.'
    )
    head: str | None = Field(
        None, min_length=1, description='Head of multi-head models. None: the only one, or the one named `default`.'
    )
    level: float = Field(
        0.99,
        description='Share of the held-out atoms of the reference set whose gamma is below 1: 0.9, 0.95 or 0.99.',
    )
    density: tuple[float, float] | None = Field(
        (0.65, 1.5),
        description='Range of the number of neighbours per atom, relative to the first step of the job, in which a '
        'frame is physical. Outside of it gamma is above every ceiling. None: not checked.',
    )
    lonely_atoms: Literal['refuse', 'allow'] = Field(
        'refuse',
        description='How an atom without any neighbour within the cutoff is graded. refuse: as not physical, with '
        'gamma above every ceiling. allow: as the models grade it; that gamma is the same wherever the atom is, and '
        'mostly small.',
    )

    @field_validator('level')
    @classmethod
    def _has_a_threshold(cls, level: float) -> float:
        if problem := check_level(level):
            raise ValueError(problem)
        return level

    @field_validator('density')
    @classmethod
    def _around_one(cls, density: tuple[float, float] | None) -> tuple[float, float] | None:
        if density is not None and not 0.0 <= density[0] < 1.0 < density[1]:
            raise ValueError('must be two numbers, the first below 1 and the second above: (0.65, 1.5)')
        return density
