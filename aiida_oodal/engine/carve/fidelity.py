"""Check that a cluster still shows the failure that it was cut for.

The grade of the centre is computed again inside the carved cell and compared with that in the parent. They agree to
rounding when the cell holds the complete environment of the centre, that is when ``radius + buffer`` reaches the
cutoff (sphere) or half the edge does (cube), and no repair has touched it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import FloatArray

#: Grade of every atom, shape (n_atoms,), dimensionless, larger is worse: gamma of an ACE potential or the score of an
#: ensemble.
GradeFunction = Callable[[Atoms], ArrayLike]

#: A dump in LAMMPS's default format has six digits: 1e-5 angstrom in positions and 1e-6 in gamma.
DEFAULT_RELATIVE_TOLERANCE = 0.01
DEFAULT_ABSOLUTE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Fidelity:
    """The grade of a centre in its parent and in its cluster.

    :param gamma_parent: of the centre in the snapshot.
    :param gamma_cluster: of the centre in the carved cell.
    :param faithful: whether they agree within the tolerance.
    :param gamma_break: the threshold that the buffer is counted against.
    :param buffer_above_break: number of buffer atoms with a grade in the cell above ``gamma_break``. They are due to
        the cell boundary: the potential extrapolates there, and a fit that gives them full weight would learn these
        environments.
    :param buffer_gamma_max: largest grade of a buffer atom in the cell; 0 without a buffer.
    """

    gamma_parent: float
    gamma_cluster: float
    faithful: bool
    gamma_break: float
    buffer_above_break: int
    buffer_gamma_max: float

    @property
    def message(self) -> str:
        """Say in a sentence what was found, and what to do if the cluster is not faithful."""
        verdict, counted = 'shows' if self.faithful else 'does not show', np.isfinite(self.gamma_break)
        remedy = (
            '; use a larger buffer (radius + buffer must reach the cutoff), or a smaller repair distance: an atom '
            'within the cutoff of the centre may have been dropped or moved'
        )
        return (
            f'the cluster {verdict} the failure: gamma of the centre is {self.gamma_cluster:.6g} in the cluster and '
            f'{self.gamma_parent:.6g} in the snapshot'
            + (f'; {self.buffer_above_break} buffer atoms are above {self.gamma_break:g}' if counted else '')
            + ('' if self.faithful else remedy)
        )


def check_fidelity(
    cluster: Atoms,
    grade: GradeFunction,
    gamma_parent: float | None = None,
    *,
    gamma_break: float = np.inf,
    relative_tolerance: float = DEFAULT_RELATIVE_TOLERANCE,
    absolute_tolerance: float = DEFAULT_ABSOLUTE_TOLERANCE,
) -> Fidelity:
    """Compute the grade of all atoms in the cluster, store it, and compare that of the centre with the parent's.

    The cluster gets the array ``gamma_cluster``, shape (n_atoms,), and the fields of :class:`Fidelity` in its ``info``.

    :param cluster: from :func:`~aiida_oodal.engine.carve.cluster.extract_cluster`.
    :param grade: gives the grade of every atom of a structure, shape (n_atoms,).
    :param gamma_parent: of the centre in the snapshot; ``cluster.arrays['gamma'][0]`` when not given.
    :param gamma_break: buffer atoms above it are counted.
    :param relative_tolerance: of the parent's grade, dimensionless.
    :param absolute_tolerance: added to it, dimensionless.
    :return: what was found; the caller decides whether to refuse a cluster that is not faithful.
    :raises OodalError: when a grade is missing or not a number.
    """
    if gamma_parent is None:
        if 'gamma' not in cluster.arrays:
            raise OodalError("the cluster carries no array 'gamma' from its snapshot: pass gamma_parent")
        gamma_parent = float(np.ravel(cluster.arrays['gamma'])[0])
    grades = _checked(grade(cluster), len(cluster))
    buffer_grades = grades[cluster.arrays['force_mask'] == 0.0]
    gamma_cluster = float(grades[0])
    fidelity = Fidelity(
        gamma_parent=float(gamma_parent),
        gamma_cluster=gamma_cluster,
        faithful=bool(abs(gamma_cluster - gamma_parent) <= absolute_tolerance + relative_tolerance * abs(gamma_parent)),
        gamma_break=float(gamma_break),
        buffer_above_break=int(np.count_nonzero(buffer_grades > gamma_break)),
        buffer_gamma_max=float(buffer_grades.max(initial=0.0)),
    )
    cluster.arrays['gamma_cluster'] = grades
    cluster.info.update(asdict(fidelity))
    return fidelity


@dataclass(frozen=True)
class SecondOpinion:
    """The grades of one centre by a potential and by an ensemble."""

    gamma: float
    gamma_select: float
    score: float
    score_threshold: float

    @property
    def verdict(self) -> str:
        """Which grade finds the centre out of distribution: ``both``, ``gamma only``, ``score only``, ``neither``."""
        by_gamma, by_score = self.gamma > self.gamma_select, self.score > self.score_threshold
        if by_gamma and by_score:
            return 'both'
        if by_gamma:
            return 'gamma only'
        return 'score only' if by_score else 'neither'

    @property
    def message(self) -> str:
        """Say whether the two agree, with the score and its threshold."""
        agrees = self.verdict in ('both', 'neither')
        return (
            f'the ensemble {"agrees" if agrees else "disagrees"} ({self.verdict} out of distribution): its score is '
            f'{self.score:.4g}, the threshold {self.score_threshold:.4g}'
        )


def add_second_opinion(
    cluster: Atoms, scores: ArrayLike, *, gamma_select: float, score_threshold: float
) -> SecondOpinion:
    """Add the score of a MACE ensemble to a cluster that has gamma.

    The cluster gets the array ``score``, shape (n_atoms,), and in its ``info`` ``score`` (of the centre),
    ``score_threshold`` and ``second_opinion``.

    :param cluster: graded by :func:`check_fidelity`.
    :param scores: of every atom in the cluster, shape (n_atoms,), calibrated as the threshold is.
    :param gamma_select: gamma above it is out of distribution.
    :param score_threshold: a score above it is out of distribution.
    :raises OodalError: when a score is missing or not a number, or the cluster has no gamma.
    """
    if 'gamma_cluster' not in cluster.info:
        raise OodalError('the cluster has no gamma of its own yet: call check_fidelity first')
    checked = _checked(scores, len(cluster))
    opinion = SecondOpinion(
        cluster.info['gamma_cluster'], float(gamma_select), float(checked[0]), float(score_threshold)
    )
    cluster.arrays['score'] = checked
    cluster.info.update(score=opinion.score, score_threshold=opinion.score_threshold, second_opinion=opinion.verdict)
    return opinion


def _checked(grades: ArrayLike, n_atoms: int) -> FloatArray:
    values = np.asarray(grades, dtype=np.float64)
    if values.shape != (n_atoms,):
        raise OodalError(f'the grades have shape {values.shape} for a cluster of {n_atoms} atoms')
    if np.isnan(values).any():
        raise OodalError(f'the grade of atom {int(np.flatnonzero(np.isnan(values))[0])} of the cluster is not a number')
    return values
