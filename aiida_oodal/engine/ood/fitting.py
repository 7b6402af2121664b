"""Fit everything that scores need to a reference set, in two passes over its latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from ase.data import chemical_symbols

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option

from .ensemble import CHUNK_ATOMS, EnsembleLatents
from .looks import JUDGES
from .metrics import FITS, SCORES, Parts
from .parts.alignment import Alignment, Moments, shared_basis

#: Models whose raw latents are correlated more than this were not trained from different seeds.
_SHARED_BASIS = 0.9


@dataclass(frozen=True)
class FitOptions(Options):
    """How a reference is fitted."""

    TITLE: ClassVar[str] = 'reference settings'

    metrics: tuple[str, ...] | None = option(
        None,
        'Scores that the reference is fitted for: ' + ', '.join(SCORES) + '. None: all that the models and their '
        'latents allow. gmm needs scikit-learn where it is fitted.',
        min_length=1,
    )
    whitening_eps: float = option(
        1e-2, "Added to the eigenvalues of the latents' covariance, as a share of their mean.", gt=0.0, le=1.0
    )
    heldout_fraction: float = option(
        0.2, 'Share of the structures held out for thresholds when no held-out set is given.', gt=0.0, lt=1.0
    )
    seed: int = option(0, 'Seed of that choice, of the subsamples and of the mixture.', ge=0)
    subspace: int = option(10, 'Principal components of the consensus for gmm and knn.', ge=1, le=1000)
    mixture: int = option(8, 'Largest number of Gaussians per element.', ge=1, le=1000)
    neighbours: int = option(5, 'Nearest reference atoms that knn looks at.', ge=1, le=1000)
    sample_atoms: int = option(
        4000, 'Largest number of reference atoms per element for gmm and knn.', ge=10, le=1_000_000
    )
    min_atoms: int = option(10, 'Smallest number of reference atoms per element.', ge=2, le=1_000_000)
    conformal_level: float = option(
        0.9, 'Share of the true force errors that the conformal factor is to cover.', gt=0.0, lt=1.0
    )
    chunk_atoms: int = option(CHUNK_ATOMS, 'Atoms read at a time: memory and speed, not results.', ge=1, le=10_000_000)

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics or () if name not in SCORES]
        if unknown:
            raise OodalError(f'metrics: {", ".join(unknown)} is no score; there are {", ".join(SCORES)}')

    def for_models(self, n_models: int) -> FitOptions:
        """Return the same with the metrics named that can be fitted for so many models.

        :raises OodalError: if a score of disagreement is asked for, and there is one model.
        """
        alone = [name for name, score in SCORES.items() if n_models < 2 and 'models' in score.needs]
        if self.metrics is None:
            return replace(self, metrics=tuple(name for name in SCORES if name not in alone))
        if wrong := [name for name in self.metrics if name in alone]:
            raise OodalError(
                f'metrics: {", ".join(wrong)} needs two models or more, and there is one: leave it out, or take '
                'mahalanobis, gmm or knn'
            )
        return self


def choose_judge(metrics: Sequence[str], n_models: int) -> str:
    """Return the score that says whether an atom is known: disagreement, or distance where nobody can disagree."""
    there = [name for name in JUDGES if name in metrics]
    return there[0] if there else JUDGES[0] if n_models > 1 else JUDGES[1]


def fit_parts(latents: EnsembleLatents, options: FitOptions) -> tuple[Parts, list[str]]:
    """Fit alignment, distances and densities to the latents of a reference set.

    :param options: with metrics, see :meth:`FitOptions.for_models`.
    :return: what was fitted, and sentences that a user of it should read.
    :raises OodalError: if there are too few atoms, in all or of one element.
    """
    metrics = options.metrics or ()
    _require_atoms(latents, options.min_atoms)
    needed = [choose_judge(metrics, latents.n_models), *metrics]
    fits = dict.fromkeys(fit for name in needed if (fit := SCORES[name].fit) is not None)
    fitters = [FITS[name].make(latents, options) for name in fits]
    joint = Moments(latents.n_models * latents.n_features)
    for chunk in latents.chunks(options.chunk_atoms):
        joint.add(chunk.latents.transpose(1, 0, 2).reshape(len(chunk.numbers), -1))
        for fitter in fitters:
            if fitter.LOOKS > 0:
                fitter.look(chunk)
    alignment = Alignment.fit(joint, latents.n_models, options.whitening_eps)
    again = [fitter for fitter in fitters if fitter.LOOKS > 1]
    for chunk in latents.chunks(options.chunk_atoms) if again else ():
        consensus = alignment.apply(chunk.latents).mean(axis=0)
        for fitter in again:
            fitter.look_again(chunk, consensus)
    fitted = {name: part for fitter in fitters for name, part in fitter.finish().items()}
    return Parts(alignment, fitted), _find_relatives(joint, latents.labels)


def _require_atoms(latents: EnsembleLatents, min_atoms: int) -> None:
    """Refuse a reference set from which no covariance can be learnt."""
    if latents.n_atoms <= latents.n_features:
        raise OodalError(
            f'the reference set has {latents.n_atoms} atoms for {latents.n_features} latents: more atoms than latents '
            'are needed to whiten them, and twice as many are advised; add reference structures'
        )
    elements, counts = np.unique(latents.numbers, return_counts=True)
    rare = [f'{chemical_symbols[z]} ({n})' for z, n in zip(elements, counts, strict=True) if n < min_atoms]
    if rare:
        raise OodalError(
            f'too few reference atoms of {", ".join(rare)}: {min_atoms} of each element are needed; add structures, '
            'leave these out, or lower min_atoms'
        )


def _find_relatives(joint: Moments, labels: Sequence[str]) -> list[str]:
    """Warn of models that are not different seeds: they agree about everything, right or wrong."""
    alike = shared_basis(joint, len(labels))
    return [
        f'the models {labels[a]} and {labels[b]} are not different seeds: their latents are alike channel by channel '
        f'(correlation {alike[a, b]:.2f}; that of different seeds is about 0). They are files of one training, or were '
        'fine-tuned from the same weights, so that their agreement says little: give models from different seeds'
        for a in range(len(labels))
        for b in range(a + 1, len(labels))
        if alike[a, b] > _SHARED_BASIS
    ]
