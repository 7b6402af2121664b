"""Settings of cutting and of selecting clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option

from .cluster import Cut


@dataclass(frozen=True)
class CarveSettings(Options):
    """How clusters are cut out of the snapshots of one walker."""

    TITLE: ClassVar[str] = 'carve settings'

    radius: float = option(4.0, 'Radius of the core around the centre atom, angstrom.', gt=0.0, le=50.0)
    buffer: float = option(3.0, 'Thickness of the buffer around the core, angstrom.', ge=0.0, le=50.0)
    shape: Literal['cube', 'sphere'] = option('cube', 'cube: bulk density; sphere: vacuum in the corners.')
    repair: Literal['error', 'drop', 'relax'] = option(
        'drop',
        'What to do about overlaps across the cell boundary: refuse the cell, drop buffer atoms, or move buffer atoms.',
    )
    min_distance: float = option(
        0.5, 'Atoms that are closer than this across the cell boundary overlap, angstrom.', gt=0.0, le=5.0
    )
    bond_scale: float = option(
        0.75,
        'The same limit as a share of the sum of two covalent radii; the larger of the two limits holds.',
        ge=0.0,
        le=1.5,
    )
    whole_atoms: int = option(
        0,
        'Frames of at most this many atoms are taken whole in place of clusters, once each, and learned as whole '
        'structures are. 0: never.',
        ge=0,
        le=100000,
    )
    snapshots: int = option(1, 'How many frames to cut from, counted back from the last physical one.', ge=1, le=1000)
    centres_per_snapshot: int = option(3, 'Largest number of centres in a frame, the worst atoms first.', ge=1, le=1000)
    min_separation: float = option(4.0, 'Smallest distance between two centres of a frame, angstrom.', ge=0.0, le=100.0)
    tolerance: float = option(
        0.01,
        'Largest difference between gamma of the centre in the cell and in the snapshot: this, plus this share '
        'of gamma in the snapshot.',
        gt=0.0,
        le=1.0,
    )
    cutoff: float | None = option(
        None,
        'Cutoff of the potential, angstrom; the edge of the cell must exceed twice this. None: the cutoff of what '
        'graded the snapshots.',
        gt=0.0,
        le=50.0,
    )
    unfaithful: Literal['refuse', 'flag'] = option(
        'refuse', 'What happens to a cluster whose centre does not have the gamma that it had in the snapshot.'
    )

    def for_cutoff(self, cutoff: float | None) -> Cut:
        """Return how clusters are cut for a potential.

        :param cutoff: of the potential, angstrom; None if only the settings say it. The larger of the two holds.
        :raises OodalError: if nobody says it, or the cell would be too small for it.
        """
        cutoffs = [value for value in (cutoff, self.cutoff) if value is not None]
        if not cutoffs:
            raise OodalError(
                'carve settings: cutoff is missing: give the cutoff of the models of the ensemble, angstrom'
            )
        return Cut(
            radius=self.radius,
            buffer=self.buffer,
            cutoff=max(cutoffs),
            shape=self.shape,
            min_distance=self.min_distance,
            bond_scale=self.bond_scale,
            repair=self.repair,
            whole_atoms=self.whole_atoms,
        )


@dataclass(frozen=True)
class SelectSettings(Options):
    """Which clusters of all walkers are labelled in a round."""

    TITLE: ClassVar[str] = 'select settings'

    method: Literal['auto', 'maxvol', 'farthest', 'kmeans'] = option(
        'auto',
        'maxvol: D-optimally against the active set of the potential; farthest, kmeans: by the spread of the '
        'descriptors of centres; auto: maxvol where there is an active set, else farthest.',
    )
    seed: int = option(0, 'Seed of kmeans.', ge=0, lt=2**32)
    max_clusters: int = option(6, 'Largest number of clusters in a round.', ge=1, le=100000)
    tolerance: float = option(
        1.001,
        'MaxVol stops when no candidate has a larger gamma than this with respect to the active set and the '
        'clusters chosen so far.',
        gt=1.0,
        le=10.0,
    )
    duplicate_tolerance: float = option(
        0.05, 'Relative distance below which two environments are the same.', ge=0.0, le=1.0
    )
