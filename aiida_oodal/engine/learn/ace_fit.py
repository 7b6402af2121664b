"""Linear ACE: weighted least squares for the coefficients, MaxVol for the active set."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_basis import AceBasis, AceFitValues
from aiida_oodal.engine.learn.ace_targets import Target, check_energy_zero, named

#: Atoms per block of the design matrix: bounds the memory, and being fixed makes the result independent of ``workers``.
_BLOCK_ATOMS = 1000
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class AceFit:
    """A fitted potential.

    :param basis: with the fitted coefficients.
    :param inverse_active_set: by element, shape ``(n_functions, n_functions)``.
    :param n_environments: by element, how many the active set was chosen from.
    """

    basis: AceBasis
    inverse_active_set: dict[str, FloatArray]
    n_environments: dict[str, int]

    def save_active_set(self, path: Path | str) -> None:
        """Write the ``.asi``: an npz with one inverse active set per element."""
        with Path(path).open('wb') as stream:
            np.savez(stream, allow_pickle=False, **self.inverse_active_set)

    def gamma(self, atoms: Atoms, projections: Sequence[FloatArray]) -> FloatArray:
        """Return the extrapolation grade of each atom, shape ``(n_atoms,)``.

        Largest absolute entry of projection x inverse active set (Lysogorskiy et al., Phys. Rev. Materials 7, 043801).
        """
        inverses = [self.inverse_active_set[name] for name in atoms.get_chemical_symbols()]
        return np.array([np.abs(row @ inverse).max() for row, inverse in zip(projections, inverses, strict=True)])


def fit_ace(
    targets: Sequence[Target], values: AceFitValues, *, workers: int = 1, report: Callable[[str], None] | None = None
) -> AceFit:
    """Fit coefficients and choose the active set in one pass over the structures.

    :param targets: labelled structures; their elements become those of the potential.
    :param values: settings as plain values.
    :param workers: processes that build the design matrix; the result does not depend on it.
    :param report: called with a line of progress after each block.
    :raises OodalError: if there are fewer environments than functions of an element, they are not independent, or the
        energies are total energies without reference.
    """
    elements = sorted({symbol for target in targets for symbol in target.atoms.get_chemical_symbols()})
    if not elements:
        raise OodalError('there is no structure to fit: add labelled structures to the training data')
    check_energy_zero(targets)
    basis = AceBasis.from_settings(values, elements)
    n_environments = _count_environments(targets, basis)
    blocks = list(_blocks(targets))
    triangle: FloatArray = np.zeros((0, basis.n_functions + 1))
    projections: dict[str, list[FloatArray]] = {name: [] for name in basis.elements}
    for number, block in enumerate(_reduce_all(blocks, values, basis, workers), start=1):
        triangle = _triangle(np.vstack([triangle, block.triangle]))
        for name, rows in block.projections.items():
            projections[name].append(rows)
        if report is not None:
            report(f'design matrix: block {number} of {len(blocks)}')
    basis.basis.basis_coeffs = _solve(triangle, values['ridge'])
    inverse = {name: _invert_active_set(np.vstack(rows), name, values) for name, rows in projections.items()}
    return AceFit(basis, inverse, n_environments)


@dataclass(frozen=True)
class _Block:
    """What is kept of one block: its triangular factor, and the projections of its core atoms by element."""

    triangle: FloatArray
    projections: dict[str, FloatArray]


def _blocks(targets: Sequence[Target]) -> Iterator[list[Target]]:
    """Cut the targets, in order, into blocks of about :data:`_BLOCK_ATOMS` atoms."""
    block: list[Target] = []
    n_atoms = 0
    for target in targets:
        block.append(target)
        n_atoms += len(target.atoms)
        if n_atoms >= _BLOCK_ATOMS:
            yield block
            block, n_atoms = [], 0
    if block:
        yield block


def _reduce(block: Sequence[Target], basis: AceBasis) -> _Block:
    """Build the weighted rows of a block and reduce them to a triangle by QR.

    The rows are ``[X | y]``; the triangle of ``[X | y]`` has the same normal equations as the rows themselves, without
    squaring their condition number as X^T X would, so that blocks can be joined one after the other (sequential TSQR,
    Demmel et al., SIAM J. Sci. Comput. 34, A206). Rows of weight 0 are left out, not multiplied.
    """
    rows: list[FloatArray] = []
    projections: dict[str, list[FloatArray]] = {name: [] for name in basis.elements}
    for target in block:
        with named(target):
            design = basis.design(target.atoms)
        if target.energy_weight > 0.0:
            row = np.append(design.energy / len(target.atoms), target.energy)
            rows.append(target.energy_weight * row[np.newaxis])
        kept = target.force_weights > 0.0
        both = np.concatenate([design.forces[kept], target.forces[kept][..., np.newaxis]], axis=2)
        weighted = target.force_weights[kept][:, np.newaxis, np.newaxis] * both
        rows.append(weighted.reshape(-1, basis.n_functions + 1))
        for index, symbol in enumerate(target.atoms.get_chemical_symbols()):
            if target.core[index]:
                projections[symbol].append(design.projections[index])
    return _Block(
        triangle=_triangle(np.vstack(rows)),
        projections={
            name: np.array(vectors).reshape(-1, size)
            for (name, vectors), size in zip(projections.items(), basis.sizes, strict=True)
        },
    )


def _triangle(rows: FloatArray) -> FloatArray:
    """Return the R of a QR factorisation."""
    return np.asarray(np.linalg.qr(rows, mode='r'), dtype=np.float64)


_worker_basis: AceBasis


def _start_worker(values: AceFitValues, elements: Sequence[str]) -> None:
    """Make the basis of a worker process once: C++ objects cannot be sent to it."""
    global _worker_basis
    _worker_basis = AceBasis.from_settings(values, elements)


def _reduce_in_worker(block: Sequence[Target]) -> _Block:
    return _reduce(block, _worker_basis)


def _reduce_all(
    blocks: Sequence[Sequence[Target]], values: AceFitValues, basis: AceBasis, workers: int
) -> Iterator[_Block]:
    """Reduce all blocks in order, in this process or in several."""
    if workers <= 1 or len(blocks) == 1:
        for block in blocks:
            yield _reduce(block, basis)
        return
    # spawn: a fork copies locks that threads of BLAS may hold at that moment
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(
        min(workers, len(blocks)), context, initializer=_start_worker, initargs=(values, basis.elements)
    ) as pool:
        yield from pool.map(_reduce_in_worker, blocks)


def _count_environments(targets: Sequence[Target], basis: AceBasis) -> dict[str, int]:
    """Count the environments that may enter the active set; fail before the expensive part if there are too few."""
    counts = dict.fromkeys(basis.elements, 0)
    for target in targets:
        for index, symbol in enumerate(target.atoms.get_chemical_symbols()):
            counts[symbol] += int(target.core[index])
    for (name, count), size in zip(counts.items(), basis.sizes, strict=True):
        if count < size:
            raise OodalError(
                f'{name}: {count} environments for {size} basis functions, the active set needs at least as many; '
                "add structures, lower number_of_functions, or use weights='full' if force_mask hides too many atoms"
            )
    return counts


def _solve(triangle: FloatArray, ridge: float) -> FloatArray:
    """Minimise |W (X c - y)|^2 + ridge |c|^2 from the triangle of ``[W X | W y]``; shape ``(n_functions,)``."""
    n_functions = triangle.shape[1] - 1
    rows = np.vstack([triangle, np.sqrt(ridge) * np.eye(n_functions, n_functions + 1)])
    return np.asarray(np.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=None)[0])


def _invert_active_set(projections: FloatArray, name: str, values: AceFitValues) -> FloatArray:
    """Choose as many rows as there are functions by MaxVol and invert them.

    :param projections: shape ``(n_environments, n_functions)``.
    :raises OodalError: if the environments span less than all functions: gamma would be blind in what is missing.
    """
    from pyace.maxvol import maxvol

    n_environments, n_functions = projections.shape
    try:
        chosen, _ = maxvol(
            projections.copy(), tol=values['active_set_tolerance'], max_iters=values['active_set_iterations']
        )
        active = projections[np.sort(chosen)]
        scale = np.linalg.norm(active, axis=0)
        rank = int(np.linalg.matrix_rank(active / np.where(scale > 0.0, scale, 1.0)))
    except ValueError:  # MaxVol's word for a singular matrix
        rank = int(np.linalg.matrix_rank(projections))
    if rank < n_functions:
        raise OodalError(
            f'{name}: {n_environments} environments span only {rank} of {n_functions} basis functions, so that no '
            'active set exists; add structures that differ more (larger strain or rattle, other neighbours) or lower '
            'number_of_functions'
        )
    return np.ascontiguousarray(np.linalg.inv(active))
