"""What can be chosen when structures are turned into latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option


@dataclass(frozen=True)
class LatentsSettings(Options):
    """Settings of one latents job."""

    TITLE: ClassVar[str] = 'latents settings'

    layers: Literal['all', 'last', 'first'] = option(
        'all', 'Interaction layers whose invariant features are kept, side by side.'
    )
    precision: Literal['float32', 'float64'] | None = option(
        None, 'Floating point type of the evaluation and of what is stored. None: that of each model.'
    )
    device: Literal['auto', 'cpu', 'cuda'] = option('auto', 'Where models run; auto: a GPU if there is one.')
    edges_per_batch: int | None = option(
        None,
        'Edges (pairs of neighbours, both directions) evaluated at a time. '
        'None: 5,000 on a CPU, from free memory on a GPU.',
        ge=1,
        le=10**9,
    )
    batch_size: int | None = option(
        None, 'Structures evaluated at a time, in place of a number of edges.', ge=1, le=10**6
    )
    forces: bool = option(False, 'Forces too, which takes gradients: several times the time and memory.')
    head: str | None = option(
        None, 'Head of a multi-head model that gives energies and forces. None: its only one, or the one named default.'
    )
    max_edges: int | None = option(
        None,
        'A structure with more edges is evaluated in domains of about so many. None: from free memory.',
        ge=1,
        le=10**9,
    )

    def __post_init__(self) -> None:
        if self.edges_per_batch is not None and self.batch_size is not None:
            raise OodalError(
                f'edges_per_batch = {self.edges_per_batch} and batch_size = {self.batch_size} exclude each other: '
                'set one of them to null'
            )
