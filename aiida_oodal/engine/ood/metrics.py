"""The scores: what each says, what it needs, how it is computed. A new score is a line of :data:`SCORES`.

A score that needs something fitted to the reference set names a line of :data:`FITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .calibration import ErrorScale
from .ensemble import Chunk, EnsembleLatents
from .looks import JUDGES, OVERALL
from .parts.alignment import Alignment, mean_and_variance
from .parts.density import DensityFit, Mixture, Neighbours, Subspace
from .parts.energies import EnergyFit, EnergyOffsets
from .parts.mahalanobis import Mahalanobis, MahalanobisFit

if TYPE_CHECKING:
    from .fitting import FitOptions

FloatArray = NDArray[np.float64]
#: What a score may need beyond latents.
Need = Literal['models', 'forces', 'energies', 'labels']


class Fitter(Protocol):
    """Collects what one line of :data:`FITS` makes while the latents of a reference set are read.

    :cvar LOOKS: how often it has to see the latents: 0, 1 or 2 times.
    """

    LOOKS: int

    def look(self, chunk: Chunk) -> None:
        """Take in a chunk on the first pass."""

    def look_again(self, chunk: Chunk, consensus: FloatArray) -> None:
        """Take in a chunk on the second pass, with the mean over models of its aligned latents, (n, n_features)."""

    def finish(self) -> dict[str, Any]:
        """Return what was fitted: dataclasses of arrays, by name."""


@dataclass(frozen=True)
class Fit:
    """Something that is fitted to a reference set.

    :param make: takes the latents and the options, and returns a :class:`Fitter`.
    :param kinds: the dataclasses of arrays that it returns, by name; names are unique among all fits.
    """

    make: Callable[[EnsembleLatents, FitOptions], Fitter]
    kinds: Mapping[str, type[Any]]


@dataclass(frozen=True, eq=False)
class Parts:
    """What was fitted.

    :param alignment: of the models.
    :param fitted: of the lines of :data:`FITS`, by name.
    """

    alignment: Alignment
    fitted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Seen:
    """A chunk of latents as scores see it; what several scores need is computed once.

    :param judge: the score that says whether an atom is known.
    """

    chunk: Chunk
    parts: Parts
    scale: ErrorScale | None
    judge: str

    @cached_property
    def _common(self) -> tuple[FloatArray, FloatArray]:
        return mean_and_variance(self.parts.alignment.apply(self.chunk.latents))

    @property
    def consensus(self) -> FloatArray:
        """Mean over models of the aligned latents, shape (n, n_features)."""
        return self._common[0]

    @cached_property
    def disagreement(self) -> FloatArray:
        """Standard deviation over models of the aligned latents, shape (n,)."""
        result: FloatArray = np.sqrt(self._common[1])
        return result

    @cached_property
    def distance(self) -> FloatArray:
        """Distance from the atoms of the same element in the reference set, shape (n,)."""
        result: FloatArray = self.parts.fitted['mahalanobis'](self.chunk.numbers, self.chunk.latents)
        return result

    def predict_errors(self) -> FloatArray:
        """Return the predicted force errors, eV/angstrom, shape (n,)."""
        assert self.scale is not None  # chosen by `needs`
        return self.scale(self.chunk.numbers, SCORES[self.judge].of_atoms(self))

    def density(self, name: str) -> FloatArray:
        """Ask the mixture or the neighbours about the consensus, shape (n,)."""
        fitted = self.parts.fitted
        result: FloatArray = fitted[name](fitted['subspace'], self.chunk.numbers, self.consensus)
        return result

    def force_spread(self) -> FloatArray:
        """Return the standard deviation over models of a force component, eV/angstrom, shape (n,)."""
        assert self.chunk.forces is not None  # chosen by `needs`
        result: FloatArray = np.sqrt(self.chunk.forces.var(axis=0, ddof=1).mean(axis=1))
        return result


@dataclass(frozen=True)
class Score:
    """One score: a number for each atom or structure, larger is further out.

    :param text: what a user should know of it.
    :param compute: the score of each atom of a chunk, shape (n,); None for a score that only structures have.
    :param structures: for such a score, that of each structure, shape (n_structures,).
    :param fit: the line of :data:`FITS` that it needs.
    :param needs: what the latents, or the reference, must have.
    :param unit: empty for a number without unit.
    """

    text: str
    compute: Callable[[Seen], FloatArray] | None = None
    structures: Callable[[EnsembleLatents, Parts], FloatArray] | None = None
    fit: str | None = None
    needs: tuple[Need, ...] = ()
    unit: str = ''

    def of_atoms(self, seen: Seen) -> FloatArray:
        """Return the score of the atoms of a chunk, shape (n,)."""
        assert self.compute is not None  # asked of scores of atoms only
        return self.compute(seen)


def _energy_spread(latents: EnsembleLatents, parts: Parts) -> FloatArray:
    """Return the spread over models of the energy per atom, eV, shape (n_structures,)."""
    assert latents.energies is not None  # chosen by `needs`
    result: FloatArray = parts.fitted['energy_offsets'](latents, latents.energies)
    return result


FITS: dict[str, Fit] = {
    'mahalanobis': Fit(MahalanobisFit, {'mahalanobis': Mahalanobis}),
    'density': Fit(DensityFit, {'subspace': Subspace, 'mixture': Mixture, 'neighbours': Neighbours}),
    'energies': Fit(EnergyFit, {'energy_offsets': EnergyOffsets}),
}
SCORES: dict[str, Score] = {
    'variance': Score(
        'variance over models of the raw latents, mean over latents: the original definition. Known flaw: the latents '
        'of independently trained models have unrelated bases, so it measures the norm of the latents, which is mostly '
        'the element, and can rank sets the wrong way round; use aligned_variance',
        lambda seen: mean_and_variance(seen.chunk.latents)[1],
        needs=('models',),
    ),
    'aligned_variance': Score(
        'disagreement over models of whitened and aligned latents: root of the variance, in units of the spread of the '
        'reference set (the default of two models or more)',
        lambda seen: seen.disagreement,
        needs=('models',),
    ),
    'predicted_error': Score(
        'the default score turned into a force error by labelled held-out structures',
        Seen.predict_errors,
        needs=('labels',),
        unit='eV/angstrom',
    ),
    'mahalanobis': Score(
        'distance from the atoms of the same element in the reference set, mean over models (the default of one model)',
        lambda seen: seen.distance,
        fit='mahalanobis',
    ),
    'gmm': Score(
        'negative log-likelihood of the aligned consensus under a Gaussian mixture of the element, per latent',
        lambda seen: seen.density('mixture'),
        fit='density',
    ),
    'knn': Score(
        'distance of the aligned consensus from the nearest reference atoms of the element',
        lambda seen: seen.density('neighbours'),
        fit='density',
    ),
    'force_std': Score(
        'standard deviation over models of a force component',
        Seen.force_spread,
        needs=('models', 'forces'),
        unit='eV/angstrom',
    ),
    'energy_std': Score(
        'standard deviation over models of the energy per atom, without what is constant for a composition; one number '
        'for a structure',
        structures=_energy_spread,
        fit='energies',
        needs=('models', 'energies'),
        unit='eV/atom',
    ),
}


#: Scores that are held against each other: where one flags many and another none, a user should know.
CONTRASTED = ('aligned_variance', 'mahalanobis', 'gmm', 'knn', 'force_std')


def describe_scores() -> dict[str, str]:
    """Return what a user should know of each score, the overall verdict first."""
    overall = (
        f'the verdict: how far {" or ".join(JUDGES)} is above what held-out structures show, by the mean over atoms or '
        'by the worst atom, whichever is furthest; thresholds are corrected for the number of looks'
    )
    units = {name: f' [{score.unit}]' if score.unit else '' for name, score in SCORES.items()}
    return {OVERALL: overall} | {name: score.text + units[name] for name, score in SCORES.items()}
