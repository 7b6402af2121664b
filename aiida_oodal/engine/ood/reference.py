"""A reference set as scores need it: fitted once, stored as arrays, used on any later set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.alignment import Alignment, disagreement
from aiida_oodal.engine.ood.calibration import ErrorScale, Thresholds
from aiida_oodal.engine.ood.density import Mixture, Neighbours, Subspace
from aiida_oodal.engine.ood.energies import EnergyOffsets
from aiida_oodal.engine.ood.ensemble import CHUNK_ATOMS, EnsembleLatents
from aiida_oodal.engine.ood.fitting import FitOptions, Parts, fit_parts, hold_out
from aiida_oodal.engine.ood.mahalanobis import Mahalanobis
from aiida_oodal.engine.ood.scores import AGGREGATES, OodScores
from aiida_oodal.engine.ood.scoring import choose_metrics, score_atoms

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: What :meth:`OodReference.from_arrays` builds, under the names of :class:`Parts`.
_KINDS: dict[str, type[Any]] = {
    'alignment': Alignment,
    'mahalanobis': Mahalanobis,
    'subspace': Subspace,
    'mixture': Mixture,
    'neighbours': Neighbours,
    'energy_offsets': EnergyOffsets,
}


@dataclass(frozen=True, eq=False)
class OodReference:
    """Alignment, densities and thresholds of one ensemble on one reference set.

    :param labels: models of the ensemble.
    :param elements: atomic numbers of the reference set, ascending, shape (n_elements,).
    :param n_structures: structures that were fitted to (held-out ones do not count).
    :param n_atoms: atoms that were fitted to.
    :param options: with which it was fitted.
    :param parts: what was fitted.
    :param thresholds: from held-out structures.
    :param error_scale: from labelled held-out structures.
    :param notes: sentences that a user of the thresholds should read.
    """

    labels: tuple[str, ...]
    elements: IntArray
    n_structures: int
    n_atoms: int
    options: FitOptions
    parts: Parts
    thresholds: Thresholds | None = None
    error_scale: ErrorScale | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def fit(
        cls,
        latents: EnsembleLatents,
        heldout: EnsembleLatents | None = None,
        *,
        settings: Mapping[str, Any] | FitOptions | None = None,
        reference_forces: ArrayLike | None = None,
    ) -> OodReference:
        """Fit to the latents of a reference set, and take the thresholds from structures that were held out.

        :param latents: of structures that the models know: their training set.
        :param heldout: of structures from the same distribution that the models were not trained on: their validation
            set. Without it a part of ``latents`` is held out; models that were trained on it know it, and the
            thresholds are tighter than they should be.
        :param settings: the fields of :class:`FitOptions`.
        :param reference_forces: labels of the held-out atoms (of all of ``latents`` when ``heldout`` is not given),
            eV/angstrom, shape (n, 3), NaN where there is none; the held-out latents must bring the models' forces.
        :raises OodalError: if there are too few structures or atoms, the models differ, or the labels do not fit.
        """
        options = FitOptions.load(settings)
        notes = []
        labels = None if reference_forces is None else np.asarray(reference_forces, dtype=np.float64)
        reference = latents
        if heldout is None:
            kept, out = hold_out(len(latents), options.heldout_fraction, options.seed)
            if labels is not None:
                labels = _rows_of(labels, latents, out)
            reference, heldout = latents.select(kept), latents.select(out)
            notes.append(
                f'thresholds come from {len(out)} structures held out of the reference set itself: if the models were '
                'trained on them, more than the nominal share of new structures will be above'
            )
        fitted = cls(
            labels=reference.labels,
            elements=np.unique(reference.numbers),
            n_structures=len(reference),
            n_atoms=reference.n_atoms,
            options=options,
            parts=fit_parts(reference, options),
        )
        return fitted._calibrate(heldout, labels, notes)

    def score(
        self,
        latents: EnsembleLatents,
        metrics: Sequence[str] | None = None,
        *,
        chunk_atoms: int = CHUNK_ATOMS,
        unknown_elements: Literal['error', 'far'] = 'error',
    ) -> OodScores:
        """Score a set of structures; latents are read once, in chunks.

        :param metrics: names from ``scores.METRICS``; all that can be computed if not given.
        :param unknown_elements: ``far`` gives atoms of elements that the reference set lacks an infinite distance.
        :raises OodalError: if the models differ, an element is not known, or a metric cannot be computed.
        """
        if self.thresholds is None:
            raise OodalError('this reference has no thresholds: it was not made by OodReference.fit')
        self._require(latents, unknown_elements)
        per_atom, per_structure = self._compute(latents, metrics, chunk_atoms)
        own = latents.labels, latents.numbers, latents.offsets, latents.structure_index
        return OodScores(*own, per_atom, per_structure, self.thresholds)

    def per_atom_aligned_variance(self, latents: Sequence[NDArray[Any]]) -> FloatArray:
        """Return the disagreement about some atoms, shape (n,), as in the score ``aligned_variance``.

        :param latents: of each model in the order of ``labels``, shape (n, n_features).
        """
        return disagreement(self.parts.alignment.apply(np.stack(latents).astype(np.float64, copy=False)))

    def gamma(self, numbers: ArrayLike, latents: Sequence[NDArray[Any]], *, level: float = 0.99) -> FloatArray:
        """Return disagreement over the threshold of each atom's element, for MD: 1 is the edge of the reference set.

        :param numbers: shape (n,).
        :param latents: of each model in the order of ``labels``, shape (n, n_features).
        :param level: share of the held-out atoms that lie below 1.
        :return: shape (n,); infinite for elements that the reference set lacks.
        """
        if self.thresholds is None:
            raise OodalError('this reference has no thresholds: it was not made by OodReference.fit')
        edge = self.thresholds.of_atoms('aligned_variance', level, np.asarray(numbers, dtype=np.int64))
        known = edge > 0.0
        return np.where(known, self.per_atom_aligned_variance(latents) / np.where(known, edge, 1.0), np.inf)

    def consensus(self, latents: EnsembleLatents, atoms: IntArray | None = None) -> NDArray[np.float32]:
        """Return the mean over models of aligned latents, for maps of latent space and K-means.

        :param atoms: ascending indices of the atoms to take; all if not given.
        :return: shape (n, n_features).
        """
        self._require(latents, 'far')
        taken = np.arange(latents.n_atoms) if atoms is None else np.asarray(atoms)
        result = np.empty((len(taken), latents.n_features), dtype=np.float32)
        for chunk in latents.chunks():
            first, last = np.searchsorted(taken, [chunk.atoms.start, chunk.atoms.stop])
            if last > first:
                own = chunk.latents[:, taken[first:last] - chunk.atoms.start]
                result[first:last] = self.parts.alignment.apply(own).mean(axis=0)
        return result

    def structure_consensus(self, latents: EnsembleLatents) -> FloatArray:
        """Return the mean over atoms of the consensus of each structure, shape (n_structures, n_features)."""
        self._require(latents, 'far')
        result = np.empty((len(latents), latents.n_features))
        for chunk in latents.chunks():
            bounds = latents.offsets[chunk.structures.start : chunk.structures.stop + 1]
            sums = np.add.reduceat(
                self.parts.alignment.apply(chunk.latents).mean(axis=0), bounds[:-1] - bounds[0], axis=0
            )
            result[chunk.structures] = sums / np.diff(bounds)[:, None]
        return result

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all as plain arrays, as :meth:`from_arrays` takes them; ``header`` is JSON as bytes."""
        header: dict[str, Any] = {name: getattr(self, name) for name in ('labels', 'n_structures', 'n_atoms', 'notes')}
        header['options'] = asdict(self.options)
        arrays: dict[str, NDArray[Any]] = {'elements': self.elements}
        for name, kind in _KINDS.items():
            part = getattr(self.parts, name)
            if part is not None:
                arrays |= {f'{name}__{f.name}': getattr(part, f.name) for f in fields(kind) if f.init}
        if self.thresholds is not None:
            arrays |= {f'thresholds__{name}': values for name, values in self.thresholds.to_arrays().items()}
        if self.error_scale is not None:
            header['error_scale'] = {name: getattr(self.error_scale, name) for name in ('level', 'factor', 'covered')}
            arrays['error_scale__scales'] = self.error_scale.scales
        return {'header': np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> OodReference:
        """Build a reference from what :meth:`to_arrays` gave; nothing is unpickled.

        :raises OodalError: if something is missing.
        """
        try:
            header = json.loads(np.asarray(arrays['header']).tobytes())
            elements = np.asarray(arrays['elements'])
            parts: dict[str, Any] = {}
            for name, kind in _KINDS.items():
                own = {
                    key.removeprefix(f'{name}__'): np.asarray(arrays[key])
                    for key in arrays
                    if key.startswith(f'{name}__')
                }
                parts[name] = kind(**own) if own else None
            bounds = {k.removeprefix('thresholds__'): arrays[k] for k in arrays if k.startswith('thresholds__')}
            scale = header.get('error_scale')
            return cls(
                labels=tuple(header['labels']),
                elements=elements,
                n_structures=header['n_structures'],
                n_atoms=header['n_atoms'],
                options=FitOptions.load(header['options']),
                parts=Parts(**parts),
                thresholds=Thresholds.from_arrays(bounds) if bounds else None,
                error_scale=ErrorScale(elements, np.asarray(arrays['error_scale__scales']), **scale) if scale else None,
                notes=tuple(header['notes']),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise OodalError(f'the reference is damaged or of another kind ({error!r})') from error

    def _calibrate(self, heldout: EnsembleLatents, labels: FloatArray | None, notes: list[str]) -> OodReference:
        """Return the same with thresholds, and with force errors where there are labels."""
        self._require(heldout, 'error')
        calibrated = self
        if labels is not None:
            if heldout.forces is None or labels.shape != (heldout.n_atoms, 3):
                raise OodalError(
                    f'reference_forces have shape {labels.shape}; the labels of the {heldout.n_atoms} held-out atoms, '
                    'and latents computed with forces, are needed'
                )
            found, _ = self._compute(heldout, ('aligned_variance',), self.options.chunk_atoms)
            predicted = np.concatenate([c.forces.mean(axis=0) for c in heldout.chunks() if c.forces is not None])
            errors = np.linalg.norm(predicted - labels, axis=1)
            level = self.options.conformal_level
            own = ErrorScale.fit(heldout.numbers, found['aligned_variance'], errors, self.elements, level)
            calibrated = replace(self, error_scale=own)
        per_atom, per_structure = calibrated._compute(heldout, None, self.options.chunk_atoms)
        thresholds = Thresholds.fit(heldout.numbers, per_atom, per_structure, AGGREGATES, self.elements)
        if not thresholds.resolves(0.95):
            notes.append(f'{len(heldout)} held-out structures are too few for a threshold at 95 % (19 are needed)')
        missing = [chemical_symbols[z] for z, n in zip(self.elements, thresholds.n_atoms, strict=True) if not n]
        if missing:
            notes.append(
                f'no held-out structure contains {", ".join(missing)}: their atoms have the threshold of all atoms'
            )
        return replace(calibrated, thresholds=thresholds, notes=tuple(notes))

    def _compute(
        self, latents: EnsembleLatents, metrics: Sequence[str] | None, chunk_atoms: int
    ) -> tuple[dict[str, FloatArray], dict[str, dict[str, FloatArray]]]:
        """Compute scores of atoms and structures, without thresholds."""
        chosen = choose_metrics(latents, self.options.metrics, self.parts, self.error_scale, metrics)
        return score_atoms(latents, self.parts, self.error_scale, chosen, chunk_atoms)

    def _require(self, latents: EnsembleLatents, unknown_elements: str) -> None:
        """Refuse latents of other models, and elements that are not known unless they may be far."""
        n_features = self.parts.alignment.means.shape[1]
        if latents.labels != self.labels or latents.n_features != n_features:
            raise OodalError(
                f'the reference was fitted to {n_features} latents of the models {", ".join(self.labels)}; these are '
                f'{latents.n_features} latents of {", ".join(latents.labels)}: compute them with the same ensemble and '
                'layers'
            )
        unknown = np.setdiff1d(latents.numbers, self.elements)
        if len(unknown) and unknown_elements == 'error':
            structure = int(
                np.searchsorted(latents.offsets, np.flatnonzero(np.isin(latents.numbers, unknown))[0], 'right')
            )
            raise OodalError(
                f'structure {latents.structure_index[structure - 1]} contains '
                f'{", ".join(chemical_symbols[z] for z in unknown)}, which the reference set lacks '
                f'({", ".join(chemical_symbols[z] for z in self.elements)}): leave such structures out, or score with '
                "unknown_elements='far'"
            )


def _rows_of(values: FloatArray, latents: EnsembleLatents, structures: IntArray) -> FloatArray:
    """Return the rows of the atoms of some structures.

    :raises OodalError: if there is not one row for each atom of the set.
    """
    if values.shape != (latents.n_atoms, 3):
        raise OodalError(f'reference_forces have shape {values.shape}, not {(latents.n_atoms, 3)}')
    return np.concatenate([values[latents.offsets[i] : latents.offsets[i + 1]] for i in structures])
