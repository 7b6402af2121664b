"""What gamma means in eV/angstrom: fitted to labels of every round, and tested on the labels of the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.options import Options, option
from aiida_oodal.engine.thresholds import Thresholds

from .bound import ErrorBound, FloatArray
from .judge import ERROR, GAMMA, STRUCTURE, find_core

#: How far gamma_break stays from the other thresholds, at least.
_ABOVE = 1.001
#: Gamma at which the bound is told.
_TOLD = (1.0, 2.0, 5.0)
#: Parts of a validation set; each is tested by a bound that was fitted to the others.
_FOLDS = 5


@dataclass(frozen=True)
class CalibrationSettings(Options):
    """What gamma means in eV/angstrom."""

    TITLE: ClassVar[str] = 'calibration'

    coverage: float = option(
        0.9, 'Share of the atoms whose force error is promised to be below the bound at their gamma.', ge=0.5, le=0.99
    )
    halt_error: float | None = option(
        None,
        'MD halts where the bound on the force error of an atom passes this, eV/angstrom: from the round after the '
        'first calibration on, gamma_break follows from it. None: gamma_break is a number.',
        gt=0.0,
        le=100.0,
    )
    least_atoms: int = option(100, 'Labelled atoms without which there is no calibration.', ge=10, le=10**9)


@dataclass(frozen=True, eq=False)
class Sample:
    """Atoms, mostly of one structure, of which gamma and the force error are known.

    :param gamma: shape (n,).
    :param error: length of the difference of predicted force and label, eV/angstrom, shape (n,).
    """

    gamma: FloatArray
    error: FloatArray

    @classmethod
    def join(cls, samples: Sequence[Sample]) -> Sample:
        """Return the atoms of all samples as one."""
        empty = [np.zeros(0)]
        return cls(
            np.concatenate(empty + [sample.gamma for sample in samples]),
            np.concatenate(empty + [sample.error for sample in samples]),
        )

    @classmethod
    def of_structures(cls, frames: Sequence[Atoms]) -> list[Sample]:
        """Return for each structure its atoms, of clusters those of the core.

        :param frames: judged, with ``gamma`` and ``force_error``.
        """
        cores = [(atoms.arrays, find_core(atoms)) for atoms in frames]
        return [cls(arrays[GAMMA][core], arrays[ERROR][core]) for arrays, core in cores]

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> list[Sample]:
        """Return a sample for each structure of a validation set, see :func:`.read_validation`."""
        begins = np.flatnonzero(np.diff(arrays[STRUCTURE])) + 1
        return [cls(*parts) for parts in zip(*(np.split(arrays[name], begins) for name in (GAMMA, ERROR)), strict=True)]


def calibrate(
    labels: Sequence[Sample],
    settings: CalibrationSettings,
    *,
    earlier: Sequence[Sample] = (),
    validation: Sequence[Sample] = (),
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit what gamma means to atoms that were judged, and find out whether the promise is kept.

    Samples are the atoms of one structure each.

    :param labels: what was labelled in this round, judged by what drove the walkers in it.
    :param earlier: that of earlier rounds, judged by what drove the walkers there.
    :param validation: the validation set, judged by what drove the walkers in this round.
    :param before: what this function returned in the round before.
    :return: ``promised``, the coverage; ``on_validation``, the share of the validation atoms below bounds that were
        fitted without their structures; ``on_labels``, the share of ``labels`` below the bound of the round before;
        ``n_validation`` and ``n_labels``, how many atoms these are shares of; ``n_atoms``, how many atoms the new bound
        was fitted to; ``bound``, as :meth:`.ErrorBound.plain` gives it; ``sentences``, all this in words. What is not
        known is None.
    """
    fitted, new = choose_samples([*labels, *earlier], validation, settings.least_atoms), Sample.join(labels)
    promise = None if before is None or before['bound'] is None else ErrorBound.from_plain(before['bound'])
    n_atoms = count_atoms(fitted)
    bound = promise if n_atoms < settings.least_atoms else fit_bound(fitted, settings.coverage)
    found = {
        'promised': settings.coverage,
        'on_validation': cross_validate([*labels, *earlier], validation, settings),
        'on_labels': None if promise is None else cover(promise, new),
        'n_validation': count_atoms(validation),
        'n_labels': len(new.gamma),
        'n_atoms': n_atoms,
        'bound': None if bound is None else bound.plain(),
    }
    return found | {'sentences': explain_calibration(found)}


def count_atoms(samples: Sequence[Sample]) -> int:
    """Return the number of atoms of all samples."""
    return sum(len(sample.gamma) for sample in samples)


def choose_samples(labels: Sequence[Sample], validation: Sequence[Sample], least_atoms: int) -> list[Sample]:
    """Return what the bound is fitted to.

    Atoms that were labelled because a model was uncertain, or at the hot end of a walker, are no picture of others of
    the same gamma, and most were judged by earlier potentials. They count where the validation set knows nothing:
    beyond its largest gamma, and everywhere if it has too few atoms.

    :param labels: of all rounds.
    :param least_atoms: that a validation set has if it counts alone.
    """
    if count_atoms(validation) < least_atoms:
        return [*labels, *validation]
    largest = max(float(sample.gamma.max()) for sample in validation if len(sample.gamma))
    beyond = [(sample, sample.gamma > largest) for sample in labels]
    return [*validation, *(Sample(one.gamma[rows], one.error[rows]) for one, rows in beyond if rows.any())]


def fit_bound(samples: Sequence[Sample], coverage: float) -> ErrorBound:
    """Fit a bound that keeps its promise on new structures, too.

    Atoms of one structure are alike, so a few structures say less than their many atoms seem to. Of a bound that is
    fitted to just the promised share, the standard error of this share over the structures is taken (that of a ratio;
    Cochran, *Sampling Techniques*, 1977, chapter 6), and the bound is fitted again to a share that is larger by it, at
    most by a half of what is missing to all atoms.

    :param samples: atoms of one structure each.
    :param coverage: share of the atoms whose error is to be below the bound.
    """
    joined = Sample.join(samples)
    first = ErrorBound.fit(joined.gamma, joined.error, coverage)
    below = np.array([is_below(first, part).sum() for part in samples])
    counts = np.array([len(part.gamma) for part in samples])
    residuals = below - counts * below.sum() / counts.sum()
    spread = float(np.sqrt(np.sum(residuals**2) * len(samples) / max(1, len(samples) - 1)) / counts.sum())
    return ErrorBound.fit(joined.gamma, joined.error, coverage + min(spread, (1.0 - coverage) / 2))


def cross_validate(
    labels: Sequence[Sample], validation: Sequence[Sample], settings: CalibrationSettings
) -> float | None:
    """Return the share of validation atoms below a bound that was fitted to labels and to the other structures.

    :return: None if there are too few structures or atoms for it.
    """
    below = n_atoms = 0
    for fold in range(_FOLDS):
        others = [each for row, each in enumerate(validation) if row % _FOLDS != fold]
        known, new = choose_samples(labels, others, settings.least_atoms), Sample.join(validation[fold::_FOLDS])
        if len(validation) < _FOLDS or count_atoms(known) < settings.least_atoms:
            return None
        below += int(is_below(fit_bound(known, settings.coverage), new).sum())
        n_atoms += len(new.gamma)
    return below / n_atoms


def is_below(bound: ErrorBound, sample: Sample) -> NDArray[np.bool_]:
    """Return of which atoms the error is not above a bound."""
    below: NDArray[np.bool_] = sample.error <= bound(sample.gamma)
    return below


def cover(bound: ErrorBound, sample: Sample) -> float:
    """Return the share of atoms whose error is not above a bound."""
    return float(np.mean(is_below(bound, sample)))


def place_break(thresholds: Thresholds, bound: ErrorBound, halt_error: float) -> Thresholds:
    """Return thresholds with gamma_break where the bound passes an error.

    It lies between gamma_select and gamma_ceiling, and at most at the largest gamma that was judged: above it
    nothing is known.

    :param halt_error: eV/angstrom.
    """
    least, most = thresholds.gamma_select * _ABOVE, thresholds.gamma_ceiling / _ABOVE
    return replace(thresholds, gamma_break=float(np.clip(bound.find_gamma(halt_error), least, most)))


def explain_calibration(found: Mapping[str, Any]) -> list[str]:
    """Say what a calibration found."""
    promised = f'{100 * found["promised"]:.0f} %'
    if found['bound'] is None:
        return [f'{found["n_atoms"]} judged atoms are too few to say what gamma means in eV/angstrom']
    bound = ErrorBound.from_plain(found['bound'])
    first, *others = [gamma for gamma in _TOLD if gamma <= bound.largest] or [bound.largest]
    further = ''.join(f', {float(bound(gamma)):.3f} at {gamma:.3g}' for gamma in others)
    sentences = [
        f'{promised} of the atoms have a force error of at most {float(bound(first)):.3f} eV/angstrom at gamma '
        f'{first:.3g}{further}'
    ]
    if found['on_validation'] is not None:
        sentences.append(f'observed: {100 * found["on_validation"]:.0f} % of {found["n_validation"]} validation atoms')
    else:
        sentences.append('a promise that only a validation set would test; there is none')
    if found['on_labels'] is not None:
        sentences.append(
            f'{100 * found["on_labels"]:.0f} % of {found["n_labels"]} atoms that were labelled in this round are below '
            f'the bound of the round before, which promised {promised} (no fair sample: labels are sought where errors '
            'are large)'
        )
    return sentences


def explain_break(gamma_break: float, halt_error: float) -> str:
    """Say where MD halts from now on."""
    return f'MD halts above gamma {gamma_break:.3g} from now on, for halt_error = {halt_error:g} eV/angstrom'
