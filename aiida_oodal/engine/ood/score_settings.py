"""What can be chosen when a set is scored against a reference and candidates are taken."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from aiida_oodal.engine.ood.calibration import check_level
from aiida_oodal.engine.ood.ensemble import CHUNK_ATOMS
from aiida_oodal.engine.ood.scores import METRICS
from aiida_oodal.engine.settings import Settings

Metric = Literal[
    'variance',
    'aligned_variance',
    'predicted_error',
    'mahalanobis',
    'gmm',
    'knn',
    'force_std',
    'energy_std',
]


class ReferenceSettings(Settings):
    """How a reference is fitted; the fields are those of ``fitting.FitOptions``."""

    TITLE: ClassVar[str] = 'reference settings'

    metrics: tuple[Metric, ...] = Field(
        tuple(METRICS),  # type: ignore[arg-type]
        min_length=1,
        description='Scores that the reference is fitted for; gmm needs scikit-learn where it is fitted.',
    )
    whitening_eps: float = Field(
        1e-2, gt=0.0, le=1.0, description="Added to the eigenvalues of the latents' covariance, share of their mean."
    )
    heldout_fraction: float = Field(
        0.2, gt=0.0, lt=1.0, description='Share of the structures held out when no held-out set is given.'
    )
    seed: int = Field(0, ge=0, description='Of that choice, of subsamples and of the mixture.')
    subspace: int = Field(10, ge=1, le=1000, description='Principal components of the consensus for gmm and knn.')
    mixture: int = Field(8, ge=1, le=1000, description='Gaussians an element, at most.')
    neighbours: int = Field(5, ge=1, le=1000, description='Nearest reference atoms that knn looks at.')
    sample_atoms: int = Field(
        4000, ge=10, le=1_000_000, description='Reference atoms an element for gmm and knn, at most.'
    )
    min_atoms: int = Field(10, ge=2, le=1_000_000, description='Reference atoms an element, at least.')
    conformal_level: float = Field(
        0.9, gt=0.0, lt=1.0, description='Share of the true force errors that the conformal factor is to cover.'
    )
    chunk_atoms: int = Field(
        CHUNK_ATOMS, ge=1, le=10_000_000, description='Atoms read at a time: memory and speed, not results.'
    )

    def fit_options(self) -> dict[str, Any]:
        """Return plain values, as ``OodReference.fit`` and JSON take them."""
        return self.model_dump(mode='json')


class CandidateSettings(Settings):
    """Which structures become candidates."""

    TITLE: ClassVar[str] = 'candidate settings'

    metric: Metric = Field('aligned_variance', description='Score to choose by.')
    aggregate: Literal['mean', 'max', 'p95'] = Field('mean', description='From atoms to structures.')
    method: Literal['top', 'kmeans', 'farthest'] = Field(
        'top', description='Largest scores, or spread over the aligned consensus of those that are eligible.'
    )
    n: int | None = Field(None, ge=1, le=10_000_000, description='How many at most; all that are eligible by default.')
    level: float | None = Field(
        None,
        description='Only structures above the threshold that this share (0.9, 0.95, 0.99) of the held-out is below.',
    )
    threshold: float | None = Field(None, description='Only structures whose score is above.')
    quantile: float | None = Field(None, ge=0.0, lt=1.0, description='Only above this quantile of the set itself.')
    tolerance: float | None = Field(
        None,
        gt=0.0,
        description='Structures this near to a known one or to a candidate with a larger score are left out.',
    )
    seed: int = Field(0, ge=0, description='Of K-means.')

    @model_validator(mode='after')
    def _enough_is_said(self) -> Self:
        limits = (self.n, self.level, self.threshold, self.quantile)
        if all(limit is None for limit in limits):
            raise ValueError('say which structures to take: n, level, threshold or quantile')
        if self.level is not None and (problem := check_level(self.level)):
            raise ValueError(problem)
        if self.level is not None and self.threshold is not None:
            raise ValueError('level and threshold both set the limit: give one of them')
        if self.method != 'top' and self.n is None:
            raise ValueError(f'method = {self.method!r} needs n, the number of candidates')
        return self
