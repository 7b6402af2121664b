"""Fit everything that scores need to a reference set, in two passes over its latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, cast

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.alignment import Alignment, Moments
from aiida_oodal.engine.ood.density import Mixture, Neighbours, Subspace
from aiida_oodal.engine.ood.energies import EnergyOffsets
from aiida_oodal.engine.ood.ensemble import CHUNK_ATOMS, EnsembleLatents
from aiida_oodal.engine.ood.mahalanobis import Mahalanobis
from aiida_oodal.engine.ood.scores import METRICS

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class FitOptions:
    """How a reference is fitted.

    :param metrics: what can be scored later; ``gmm`` needs scikit-learn here, and nowhere else.
    :param whitening_eps: added to the eigenvalues of the latents' covariance, as a share of their mean.
    :param heldout_fraction: share of the structures held out for thresholds when no held-out set is given.
    :param seed: of that choice, of the subsamples and of the mixture.
    :param subspace: principal components of the consensus in which densities live.
    :param mixture: Gaussians an element, at most.
    :param neighbours: nearest reference atoms that ``knn`` looks at.
    :param sample_atoms: reference atoms an element that mixture and neighbours are fitted to, at most.
    :param min_atoms: reference atoms an element, at least.
    :param conformal_level: share of true force errors that the conformal factor is to cover.
    :param chunk_atoms: atoms read at a time; changes memory and speed, not results.
    """

    metrics: tuple[str, ...] = tuple(METRICS)
    whitening_eps: float = 1e-2
    heldout_fraction: float = 0.2
    seed: int = 0
    subspace: int = 10
    mixture: int = 8
    neighbours: int = 5
    sample_atoms: int = 4000
    min_atoms: int = 10
    conformal_level: float = 0.9
    chunk_atoms: int = CHUNK_ATOMS

    @classmethod
    def load(cls, values: Mapping[str, Any] | Self | None) -> Self:
        """Make options from plain values, as they come out of JSON.

        :raises OodalError: if a name is not known.
        """
        if isinstance(values, cls):
            return values
        given: dict[str, Any] = {} if values is None else dict(cast(Mapping[str, Any], values))
        wrong = sorted(set(given) - {option.name for option in fields(cls)})
        options = cls(**{name: value for name, value in given.items() if name not in wrong})
        unknown = [name for name in options.metrics if name not in METRICS]
        if wrong or unknown:
            raise OodalError(
                f'{", ".join(wrong + unknown)}: not known; options are {", ".join(f.name for f in fields(cls))}, '
                f'metrics are {", ".join(METRICS)}'
            )
        return cls(**given | {'metrics': tuple(options.metrics)})


@dataclass(frozen=True, eq=False)
class Parts:
    """What was fitted; ``None`` for what the metrics asked for do not need."""

    alignment: Alignment
    mahalanobis: Mahalanobis | None = None
    subspace: Subspace | None = None
    mixture: Mixture | None = None
    neighbours: Neighbours | None = None
    energy_offsets: EnergyOffsets | None = None


def hold_out(n_structures: int, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Split structures at random into those to fit and those to hold out; the same seed gives the same split.

    :return: ascending positions of both, one of each at least.
    :raises OodalError: if there are fewer than two structures.
    """
    if n_structures < 2:
        raise OodalError(f'{n_structures} structure(s): two or more are needed to hold one out for the thresholds')
    n_out = int(np.clip(round(fraction * n_structures), 1, n_structures - 1))
    order = np.random.default_rng(seed).permutation(n_structures)
    return np.sort(order[n_out:]), np.sort(order[:n_out])


def fit_parts(latents: EnsembleLatents, options: FitOptions) -> Parts:
    """Fit alignment and densities to the latents of a reference set.

    :raises OodalError: if there are too few atoms, in all or of one element.
    """
    _require_atoms(latents, options.min_atoms)
    dense = {'gmm', 'knn'} & set(options.metrics)
    joint, own = _moments(latents, options.chunk_atoms, per_element='mahalanobis' in options.metrics)
    alignment = Alignment.fit(joint, latents.n_models, options.whitening_eps)
    offsets = None
    if latents.energies is not None and 'energy_std' in options.metrics:
        offsets = EnergyOffsets.fit(latents, latents.energies)
    if not dense and not own:
        return Parts(alignment, energy_offsets=offsets)
    consensus, fourth, samples = _second_pass(latents, alignment, own, options)
    mahalanobis = None
    if own:
        variances = np.diagonal(joint.covariance).reshape(latents.n_models, -1).mean(axis=1)
        mahalanobis = Mahalanobis.fit(own, fourth, variances)
    if not dense:
        return Parts(alignment, mahalanobis, energy_offsets=offsets)
    subspace = Subspace.fit(consensus, options.subspace)
    projected = [subspace.project(i, samples[int(z)])[0] for i, z in enumerate(subspace.elements)]
    mixture = neighbours = None
    if 'gmm' in dense:
        scaled = [points / spread for points, spread in zip(projected, subspace.spreads, strict=True)]
        mixture = Mixture.fit(scaled, options.mixture, options.seed)
    if 'knn' in dense:
        neighbours = Neighbours.fit(projected, options.neighbours)
    return Parts(alignment, mahalanobis, subspace, mixture, neighbours, offsets)


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


def _moments(
    latents: EnsembleLatents, chunk_atoms: int, *, per_element: bool
) -> tuple[Moments, dict[int, list[Moments]]]:
    """Collect the moments of all models side by side, and of each model for each element."""
    n_models, n_features = latents.n_models, latents.n_features
    joint = Moments(n_models * n_features)
    elements = np.unique(latents.numbers).tolist() if per_element else []
    own = {z: [Moments(n_features) for _ in range(n_models)] for z in elements}
    for chunk in latents.chunks(chunk_atoms):
        joint.add(chunk.latents.transpose(1, 0, 2).reshape(len(chunk.numbers), -1))
        for z, moments in own.items():
            atoms = np.flatnonzero(chunk.numbers == z)
            for k in range(n_models):
                moments[k].add(chunk.latents[k, atoms])
    return joint, own


def _second_pass(
    latents: EnsembleLatents, alignment: Alignment, own: Mapping[int, list[Moments]], options: FitOptions
) -> tuple[dict[int, Moments], dict[int, FloatArray], dict[int, FloatArray]]:
    """Collect what needs the alignment or the means: moments of the consensus, fourth moments, a sample of atoms.

    The sample is chosen before anything is read, so that it does not depend on the chunks.

    :return: for each element the moments of the consensus, the mean of |z - mean|^4 under each model, and the consensus
        of the sampled atoms.
    """
    elements = [int(z) for z in np.unique(latents.numbers)]
    rng = np.random.default_rng(options.seed)
    sampled = np.zeros(latents.n_atoms, dtype=bool)
    for z in elements:
        atoms = np.flatnonzero(latents.numbers == z)
        sampled[rng.choice(atoms, min(len(atoms), options.sample_atoms), replace=False)] = True
    consensus = {z: Moments(latents.n_features) for z in elements}
    fourth = {z: np.zeros(latents.n_models) for z in own}
    samples: dict[int, list[FloatArray]] = {z: [] for z in elements}
    for chunk in latents.chunks(options.chunk_atoms):
        common = alignment.apply(chunk.latents).mean(axis=0)
        for z in elements:
            atoms = np.flatnonzero(chunk.numbers == z)
            consensus[z].add(common[atoms])
            samples[z].append(common[atoms[sampled[chunk.atoms][atoms]]])
            for k, moments in enumerate(own.get(z, [])):
                centred = chunk.latents[k, atoms] - moments.mean
                fourth[z][k] += np.sum(np.einsum('na,na->n', centred, centred) ** 2) / moments.n
    return consensus, fourth, {z: np.concatenate(rows) for z, rows in samples.items()}
