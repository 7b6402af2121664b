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

    forces: str = Field('w1', min_length=1, description='Label of the model that gives forces, or mean for all.')
    precision: Literal['float32', 'float64'] | None = Field(
        None, description='Floating point type of the evaluation. None: that of each model.'
    )
    device: Literal['auto', 'cpu', 'cuda'] = Field('auto', description='Where models run; auto: a GPU if there is one.')
    layers: Literal['all', 'last', 'first'] = Field(
        'all', description='Interaction layers of the latents; the same as for the reference.'
    )
    level: float = Field(
        0.99,
        description='Share of the held-out atoms of the reference set whose gamma is below 1: 0.9, 0.95 or 0.99.',
    )

    @field_validator('level')
    @classmethod
    def _has_a_threshold(cls, level: float) -> float:
        if problem := check_level(level):
            raise ValueError(problem)
        return level
