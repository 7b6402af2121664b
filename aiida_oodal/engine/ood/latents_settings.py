"""What can be chosen when structures are turned into latents, checked when a job is prepared."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from aiida_oodal.engine.settings import Settings


class LatentsSettings(Settings):
    """Settings of one latents job; ``model_dump(mode='json')`` is what the job file takes."""

    TITLE: ClassVar[str] = 'latents settings'

    layers: Literal['all', 'last', 'first'] = Field(
        'all', description='Interaction layers whose invariant features are kept, side by side.'
    )
    precision: Literal['float32', 'float64'] | None = Field(
        None, description='Floating point type of the evaluation and of what is stored. None: that of each model.'
    )
    device: Literal['auto', 'cpu', 'cuda'] = Field('auto', description='Where models run; auto: a GPU if there is one.')
    edges_per_batch: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description='Edges (pairs of neighbours, both directions) evaluated at a time. '
        'None: 5,000 on a CPU, from free memory on a GPU.',
    )
    batch_size: int | None = Field(
        None, ge=1, le=10**6, description='Structures evaluated at a time, in place of a number of edges.'
    )
    forces: bool = Field(False, description='Forces too, which takes gradients: several times the time and memory.')
    head: str | None = Field(
        None, description='Head of a multi-head model that gives energies and forces. None: its only one, or "default".'
    )
    max_edges: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description='A structure with more edges is evaluated in domains of about so many. None: from free memory.',
    )

    @model_validator(mode='after')
    def _one_kind_of_batch(self) -> Self:
        if self.edges_per_batch is not None and self.batch_size is not None:
            raise ValueError(
                f'edges_per_batch = {self.edges_per_batch} and batch_size = {self.batch_size} exclude each other: '
                'set one of them to null'
            )
        return self
