"""What can be chosen when clusters are cut and selected."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from aiida_oodal.engine.carve.cluster import Cut
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.settings import Settings


class CarveSettings(Settings):
    """How candidates are cut out of the snapshots of one walker."""

    TITLE: ClassVar[str] = 'carve settings'

    radius: float = Field(4.0, gt=0.0, le=50.0, description='Core around the centre atom, angstrom.')
    buffer: float = Field(3.0, ge=0.0, le=50.0, description='Thickness of the buffer around the core, angstrom.')
    shape: Literal['cube', 'sphere'] = Field('cube', description='cube: bulk density; sphere: vacuum in the corners.')
    repair: Literal['error', 'drop', 'relax'] = Field('drop', description='What to do about overlaps at the boundary.')
    min_distance: float = Field(0.5, gt=0.0, le=5.0, description='Overlap across the new boundary, angstrom.')
    bond_scale: float = Field(
        0.75, ge=0.0, le=1.5, description='Overlap as a share of the sum of covalent radii; the larger limit holds.'
    )
    gamma_select: float = Field(2.0, gt=0.0, description='Only atoms above are centres.')
    gamma_ceiling: float = Field(100.0, gt=0.0, description='Frames above are not physical; an earlier one is taken.')
    snapshots: int = Field(1, ge=1, le=1000, description='How many physical frames, from the last one backwards.')
    centres_per_snapshot: int = Field(3, ge=1, le=1000, description='The worst atoms of a frame.')
    min_separation: float = Field(4.0, ge=0.0, le=100.0, description='Distance between centres of a frame, angstrom.')
    tolerance: float = Field(
        0.01, gt=0.0, le=1.0, description="How far the centre's gamma in the cell may be off that in the snapshot."
    )
    cutoff: float | None = Field(
        None,
        gt=0.0,
        le=50.0,
        description='The edge exceeds twice this, angstrom. None: the cutoff of the ACE potential. That of an ensemble '
        'is inside its model files, which only jobs open, so it has to be given here.',
    )
    unfaithful: Literal['refuse', 'flag'] = Field(
        'refuse', description='What becomes of a cluster that does not show the failure.'
    )

    def for_cutoff(self, cutoff: float | None) -> Cut:
        """Return how clusters are cut for a potential.

        :param cutoff: of the potential, angstrom; None if only the settings say it. The larger of the two holds.
        :raises OodalError: if nobody says it, or the cell would be too small for it.
        """
        cutoffs = [value for value in (cutoff, self.cutoff) if value is not None]
        if not cutoffs:
            raise OodalError('carve settings: cutoff is missing: give that of the models of the ensemble, angstrom')
        return Cut(
            radius=self.radius,
            buffer=self.buffer,
            cutoff=max(cutoffs),
            shape=self.shape,
            min_distance=self.min_distance,
            bond_scale=self.bond_scale,
            repair=self.repair,
        )

    def check_cutoff(self, cutoff: float) -> None:
        """Hold the cutoff that was given against that of the models, once a job has read it.

        :raises OodalError: if it is smaller.
        """
        if self.cutoff is not None and self.cutoff < cutoff:
            raise OodalError(
                f'carve settings: cutoff = {self.cutoff:g}, but that of the models is {cutoff:g} angstrom; give that'
            )

    @model_validator(mode='after')
    def _thresholds_rise(self) -> Self:
        if not self.gamma_select < self.gamma_ceiling:
            raise ValueError(
                f'gamma_select = {self.gamma_select:g} must be below gamma_ceiling = {self.gamma_ceiling:g}'
            )
        return self


class SelectSettings(Settings):
    """How many of all walkers' candidates are labelled in a round."""

    TITLE: ClassVar[str] = 'select settings'

    method: Literal['maxvol', 'farthest', 'kmeans'] = Field(
        'maxvol',
        description='maxvol: D-optimally against the active set of the ACE potential; farthest, kmeans: by the spread '
        'of the aligned latents of centres that an ensemble looked at.',
    )
    seed: int = Field(0, ge=0, lt=2**32, description='Of kmeans.')
    max_clusters: int = Field(6, ge=1, le=100000, description='Clusters a round, at most.')
    gamma_min: float = Field(2.0, gt=0.0, description='Candidates whose centre is at or below are left out.')
    gamma_ceiling: float = Field(100.0, gt=0.0, description='Candidates whose centre is above are left out.')
    tolerance: float = Field(
        1.001, gt=1.0, le=10.0, description='Candidates within this gamma of the growing active set add nothing.'
    )
    duplicate_tolerance: float = Field(
        0.05, ge=0.0, le=1.0, description='Relative distance below which two environments are the same.'
    )
