"""A reference set as scores need it: fitted once, stored as arrays, used on any later set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from aiida_oodal.engine.arrays import read_header, take_prefix, write_header
from aiida_oodal.engine.errors import OodalError

from .calibration import FORMAT, ErrorScale, Thresholds
from .ensemble import CHUNK_ATOMS, Chunk, EnsembleLatents
from .fitting import FitOptions, choose_judge, fit_parts
from .identity import KnownStructures, ModelIdentity
from .metrics import FITS, SCORES, Parts, Seen
from .parts.alignment import Alignment
from .scores import AGGREGATES, OodScores
from .scoring import choose_metrics, score_atoms
from .splitting import find_isolated, split_sets

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
    :param models: by label, which models they are.
    :param known: the structures that it was made of.
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
    models: Mapping[str, ModelIdentity] = field(default_factory=dict)
    known: KnownStructures = field(default_factory=KnownStructures)

    @classmethod
    def fit(
        cls,
        latents: EnsembleLatents,
        heldout: EnsembleLatents | None = None,
        *,
        settings: Mapping[str, Any] | FitOptions | None = None,
        reference_forces: ArrayLike | None = None,
        models: Mapping[str, ModelIdentity] | None = None,
    ) -> OodReference:
        """Fit to the latents of a reference set, and take the thresholds from structures that were held out.

        :param latents: of structures that the models know: their training set.
        :param heldout: of structures from the same distribution that the models were not trained on: their validation
            set. Without it a part of ``latents`` is held out; models that were trained on it know it, and the
            thresholds are tighter than they should be.
        :param settings: the fields of :class:`FitOptions`; plain values are checked, which needs pydantic.
        :param reference_forces: labels of the held-out atoms (of all of ``latents`` when ``heldout`` is not given),
            eV/angstrom, shape (n, 3), NaN where there is none; the held-out latents must bring the models' forces.
        :param models: by label, which models the latents are of.
        :raises OodalError: if there are too few structures or atoms, the models differ, or the labels do not fit.
        """
        given = settings if isinstance(settings, FitOptions) else FitOptions.load(settings or {})
        options = given.for_models(latents.n_models)
        labels = None if reference_forces is None else np.asarray(reference_forces, dtype=np.float64)
        split = split_sets(latents, heldout, labels, options)
        parts, notes = fit_parts(split.reference, options)
        fitted = cls(
            labels=latents.labels,
            elements=np.unique(split.reference.numbers),
            n_structures=len(split.reference),
            n_atoms=split.reference.n_atoms,
            options=options,
            parts=parts,
            models={label: (models or {}).get(label, ModelIdentity()) for label in latents.labels},
            known=KnownStructures.of(latents, split.heldout, split.isolated),
        )
        if latents.n_models == 1:
            notes.append(
                'there is one model, so nothing is said about disagreement: structures are judged by mahalanobis, '
                'their distance from the reference set'
            )
        return fitted._calibrate(split.heldout, split.labels, [*split.notes, *notes])

    @property
    def judge(self) -> str:
        """The score that says whether an atom is known: aligned_variance, or mahalanobis of one model."""
        return choose_judge(self.options.metrics or (), len(self.labels))

    def score(
        self,
        latents: EnsembleLatents,
        metrics: Sequence[str] | None = None,
        *,
        chunk_atoms: int = CHUNK_ATOMS,
        unknown_elements: Literal['error', 'far'] = 'error',
    ) -> OodScores:
        """Score a set of structures; latents are read once, in chunks.

        Isolated atoms of elements whose isolated atom is in the reference set are left out: they are known.

        :param metrics: names from ``metrics.SCORES``; all that can be computed if not given.
        :param unknown_elements: ``far`` gives atoms of elements that the reference set lacks an infinite distance.
        :raises OodalError: if the models differ, an element is not known, a metric cannot be computed, or nothing is
            left to be scored.
        """
        thresholds = self._calibrated
        scored = np.flatnonzero(~find_isolated(latents, self.known.isolated))
        if not len(scored):
            raise OodalError('every structure is an isolated atom of the reference set: there is nothing to score')
        if len(scored) < len(latents):
            latents = latents.select(scored)
        self._require(latents, unknown_elements)
        if metrics is None:  # a score that held-out structures did not have has no threshold
            metrics = [name for name in self._find_metrics(latents) if name in thresholds.metrics]
        per_atom, per_structure = self._compute(latents, metrics, chunk_atoms)
        own = latents.labels, latents.numbers, latents.offsets, latents.structure_index
        return OodScores(*own, per_atom, thresholds.combine(per_structure), thresholds)

    def per_atom_judge(self, numbers: ArrayLike, latents: Sequence[NDArray[Any]]) -> FloatArray:
        """Return the score :attr:`judge` of some atoms, shape (n,).

        :param numbers: shape (n,).
        :param latents: of each model in the order of ``labels``, shape (n, n_features).
        """
        rows = np.stack(latents).astype(np.float64, copy=False)
        everything = slice(0, rows.shape[1])
        chunk = Chunk(everything, slice(0, 1), np.asarray(numbers, dtype=np.int64), rows, None)
        return SCORES[self.judge].of_atoms(Seen(chunk, self.parts, self.error_scale, self.judge))

    def gamma(self, numbers: ArrayLike, latents: Sequence[NDArray[Any]], *, level: float = 0.99) -> FloatArray:
        """Return :attr:`judge` over the threshold of each atom's element, for MD; it is 1 at that threshold.

        :param numbers: shape (n,).
        :param latents: of each model in the order of ``labels``, shape (n, n_features).
        :param level: share of the held-out atoms that lie below 1.
        :return: shape (n,); infinite for elements that the reference set lacks.
        """
        edge = self._calibrated.of_atoms(self.judge, level, np.asarray(numbers, dtype=np.int64))
        known = edge > 0.0
        return np.where(known, self.per_atom_judge(numbers, latents) / np.where(known, edge, 1.0), np.inf)

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
        header |= {'options': self.options.plain(), 'models': {label: vars(one) for label, one in self.models.items()}}
        arrays: dict[str, NDArray[Any]] = {'elements': self.elements}
        for name, part in {'alignment': self.parts.alignment, **self.parts.fitted, 'known': self.known}.items():
            arrays |= {f'{name}__{each.name}': getattr(part, each.name) for each in fields(part) if each.init}
        if self.thresholds is not None:
            arrays |= {f'thresholds__{name}': values for name, values in self.thresholds.to_arrays().items()}
        if self.error_scale is not None:
            header['error_scale'] = {name: getattr(self.error_scale, name) for name in ('level', 'factor', 'covered')}
            arrays['error_scale__scales'] = self.error_scale.scales
        return {'header': write_header(FORMAT, header), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> OodReference:
        """Build a reference from what :meth:`to_arrays` gave; nothing is unpickled.

        :raises OodalError: if something is missing, or a newer version wrote it.
        """
        header = read_header(arrays, 'the reference', FORMAT)
        kinds: dict[str, type[Any]] = {name: kind for fit in FITS.values() for name, kind in fit.kinds.items()}
        try:
            elements = np.asarray(arrays['elements'])
            fitted = {name: kind(**own) for name, kind in kinds.items() if (own := take_prefix(arrays, f'{name}__'))}
            bounds, scale = take_prefix(arrays, 'thresholds__'), header.get('error_scale')
            return cls(
                labels=tuple(header['labels']),
                elements=elements,
                n_structures=header['n_structures'],
                n_atoms=header['n_atoms'],
                options=FitOptions.read(header['options']),
                parts=Parts(Alignment(**take_prefix(arrays, 'alignment__')), fitted),
                thresholds=Thresholds.from_arrays(bounds) if bounds else None,
                error_scale=ErrorScale(elements, np.asarray(arrays['error_scale__scales']), **scale) if scale else None,
                notes=tuple(header['notes']),
                models={label: ModelIdentity(**one) for label, one in header.get('models', {}).items()},
                known=KnownStructures(**take_prefix(arrays, 'known__')),
            )
        except (KeyError, TypeError) as error:
            raise OodalError(f'the reference is damaged or of another kind ({error!r})') from error

    @property
    def _calibrated(self) -> Thresholds:
        """The thresholds.

        :raises OodalError: if there are none.
        """
        if self.thresholds is None:
            raise OodalError('this reference has no thresholds: it was not made by OodReference.fit')
        return self.thresholds

    def _calibrate(self, heldout: EnsembleLatents, labels: FloatArray | None, notes: list[str]) -> OodReference:
        """Return the same with thresholds, and with force errors where there are labels."""
        self._require(heldout, 'error')
        chunk_atoms, calibrated = self.options.chunk_atoms, self
        if labels is not None:
            if heldout.forces is None or labels.shape != (heldout.n_atoms, 3):
                raise OodalError(
                    f'reference_forces have shape {labels.shape}; the labels of the {heldout.n_atoms} held-out atoms, '
                    'and latents computed with forces, are needed'
                )
            found, _ = score_atoms(heldout, self.parts, None, self.judge, (self.judge,), chunk_atoms)
            predicted = np.concatenate([c.forces.mean(axis=0) for c in heldout.chunks() if c.forces is not None])
            errors = np.linalg.norm(predicted - labels, axis=1)
            level = self.options.conformal_level
            own = ErrorScale.fit(heldout.numbers, found[self.judge], errors, self.elements, level)
            calibrated = replace(self, error_scale=own)
        per_atom, per_structure = calibrated._compute(heldout, None, chunk_atoms)
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
        chosen = self._find_metrics(latents, metrics)
        return score_atoms(latents, self.parts, self.error_scale, self.judge, chosen, chunk_atoms)

    def _find_metrics(self, latents: EnsembleLatents, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the scores that can be computed, or those wanted."""
        return choose_metrics(latents, self.options.metrics or (), self.parts, self.error_scale, wanted)

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


def load_reference(path: Path) -> OodReference:
    """Read a reference from the ``.npz`` of its arrays; nothing is unpickled.

    :raises OodalError: if the file is missing or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return OodReference.from_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, EOFError) as error:
        raise OodalError(f'{path.name} cannot be read as a reference of scores ({error})') from error
