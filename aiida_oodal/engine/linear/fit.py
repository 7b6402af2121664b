"""Weighted linear least squares over many structures, in memory bounded by a block of rows."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from .atom_energies import AtomEnergies
from .basis import FloatArray, LinearBasis
from .targets import Target, named

#: Atoms per block of the design matrix: bounds the memory, and being fixed makes the result independent of ``workers``.
_BLOCK_ATOMS = 1000

Basis = TypeVar('Basis', bound=LinearBasis)


@dataclass(frozen=True)
class Solution(Generic[Basis]):
    """What a fit found.

    :param basis: with the coefficients set.
    :param force_rmse: root mean square error of the force components by the weights of their atoms, without the scales
        of the structures, eV/angstrom.
    :param atom_energies: those the fit began with, and what it added to those it was to fit.
    :param projections: environments that may enter the active set, by element, shape
        ``(n_environments, n_functions of the element)``.
    """

    basis: Basis
    force_rmse: float
    atom_energies: AtomEnergies
    projections: dict[str, FloatArray]


def fit_linear(
    make_basis: Callable[[], Basis],
    targets: Sequence[Target],
    atom_energies: AtomEnergies,
    *,
    ridge: float,
    workers: int = 1,
    report: Callable[[str], None] | None = None,
) -> Solution[Basis]:
    """Minimise the weighted squared residual of energies, forces and stresses plus ``ridge * |coefficients|^2``.

    Directions that the rows say nothing of have the coefficient 0 (the least-squares solution of smallest norm).

    :param make_basis: makes the basis; can be pickled, as every worker makes its own.
    :param atom_energies: subtracted from the energies; those that are to be fitted are unknowns like the coefficients.
    :param workers: processes that build the design matrix; the result does not depend on it.
    :param report: called with a line of progress after each block.
    """
    basis = make_basis()
    fitted = atom_energies.fitted
    n_functions = sum(basis.sizes)
    forces: FloatArray = np.zeros((0, n_functions + len(fitted) + 1))
    everything = forces
    projections: dict[str, list[FloatArray]] = {name: [] for name in basis.elements}
    blocks = list(_blocks(targets))
    for number, block in enumerate(_reduce_all(blocks, make_basis, basis, atom_energies, workers), start=1):
        forces = _triangle(np.vstack([forces, block.forces]))
        everything = _triangle(np.vstack([everything, block.everything]))
        for name, rows in block.projections.items():
            projections[name].append(rows)
        if report is not None:
            report(f'design matrix: block {number} of {len(blocks)}')
    unknowns = solve_triangle(everything, ridge)
    changes = dict(zip(fitted, unknowns[n_functions:].tolist(), strict=True))
    basis.set_coefficients(unknowns[:n_functions])
    weight = sum(3.0 * float(np.square(target.force_weights).sum()) for target in targets)
    residual = np.linalg.norm(forces @ np.append(unknowns, -1.0))
    return Solution(
        basis=basis,
        force_rmse=float(residual / np.sqrt(weight)) if weight else 0.0,
        atom_energies=atom_energies.moved(changes),
        projections={name: np.vstack(rows) for name, rows in projections.items()},
    )


def weigh_rows(
    basis: LinearBasis, target: Target, atom_energies: AtomEnergies
) -> tuple[FloatArray, FloatArray, list[FloatArray]]:
    """Make the weighted rows ``[X | counts | y]`` of one structure, not scaled.

    Columns are the functions, the atom energies that are to be fitted, and the labels. Rows of weight 0 are left out.

    :return: the rows of the forces and those of energy and stress, shapes ``(n_rows, n_functions + n_fitted + 1)``, and
        the projections of all atoms.
    """
    fitted = atom_energies.fitted
    with named(target.name, target.atoms):
        design = basis.design(target.atoms, stress=target.stress_weight > 0.0)
    n_atoms, no_energies = len(target.atoms), np.zeros(len(fitted))
    others: list[FloatArray] = [np.zeros((0, len(design.energy) + len(fitted) + 1))]
    if target.energy_weight > 0.0:
        energy = (target.energy - atom_energies.total(target)) / n_atoms
        row = np.concatenate([design.energy / n_atoms, target.count(fitted) / n_atoms, [energy]])
        others.append(target.energy_weight * row[np.newaxis])
    if target.stress_weight > 0.0 and design.stress is not None and target.stress is not None:
        columns = [design.stress, np.broadcast_to(no_energies, (6, len(fitted))), target.stress[:, np.newaxis]]
        others.append(target.stress_weight * np.hstack(columns))
    kept = target.force_weights > 0.0
    forces = np.empty((int(kept.sum()), 3, len(design.energy) + len(fitted) + 1))
    forces[..., : len(design.energy)] = design.forces[kept]
    forces[..., len(design.energy) : -1] = no_energies
    forces[..., -1] = target.forces[kept]
    forces *= target.force_weights[kept][:, np.newaxis, np.newaxis]
    return forces.reshape(-1, forces.shape[2]), np.vstack(others), design.projections


def solve_triangle(triangle: FloatArray, ridge: float) -> FloatArray:
    """Minimise ``|X c - y|^2 + ridge |c|^2`` from the triangle of ``[X | y]``; shape ``(n_unknowns,)``."""
    n_unknowns = triangle.shape[1] - 1
    rows = np.vstack([triangle, np.sqrt(ridge) * np.eye(n_unknowns, n_unknowns + 1)])
    return np.asarray(np.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=None)[0])


@dataclass(frozen=True)
class _Block:
    """What is kept of one block.

    :param forces: triangular factor of its force rows, not scaled.
    :param everything: that of all its rows, scaled.
    :param projections: of its core atoms, by element.
    """

    forces: FloatArray
    everything: FloatArray
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


def _reduce(block: Sequence[Target], basis: LinearBasis, atom_energies: AtomEnergies) -> _Block:
    """Build the weighted rows of a block and reduce them to triangles by QR.

    The triangle of ``[X | y]`` has the same normal equations as the rows themselves, without squaring their condition
    number as X^T X would, so that blocks can be joined one after the other (sequential TSQR, Demmel et al., SIAM J.
    Sci. Comput. 34, A206).
    """
    force_rows: list[FloatArray] = []
    scaled_rows: list[FloatArray] = []
    projections: dict[str, list[FloatArray]] = {name: [] for name in basis.elements}
    for target in block:
        of_forces, of_others, vectors = weigh_rows(basis, target, atom_energies)
        force_rows.append(of_forces)
        scaled_rows += [target.scale * of_forces, target.scale * of_others]
        for symbol, is_core, vector in zip(target.atoms.get_chemical_symbols(), target.core, vectors, strict=True):
            if is_core:
                projections[symbol].append(vector)
    return _Block(
        forces=_triangle(np.vstack(force_rows)),
        everything=_triangle(np.vstack(scaled_rows)),
        projections={
            name: np.array(vectors).reshape(-1, size)
            for (name, vectors), size in zip(projections.items(), basis.sizes, strict=True)
        },
    )


def _triangle(rows: FloatArray) -> FloatArray:
    """Return the R of a QR factorisation."""
    return np.asarray(np.linalg.qr(rows, mode='r'), dtype=np.float64)


_worker_basis: LinearBasis


def _start_worker(make_basis: Callable[[], LinearBasis]) -> None:
    """Make the basis of a worker process once: C++ objects cannot be sent to it."""
    global _worker_basis
    _worker_basis = make_basis()


def _reduce_in_worker(block: Sequence[Target], atom_energies: AtomEnergies) -> _Block:
    return _reduce(block, _worker_basis, atom_energies)


def _reduce_all(
    blocks: Sequence[Sequence[Target]],
    make_basis: Callable[[], LinearBasis],
    basis: LinearBasis,
    atom_energies: AtomEnergies,
    workers: int,
) -> Iterator[_Block]:
    """Reduce all blocks in order, in this process or in several."""
    if workers <= 1 or len(blocks) == 1:
        for block in blocks:
            yield _reduce(block, basis, atom_energies)
        return
    # spawn: a fork copies locks that threads of BLAS may hold at that moment
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(
        min(workers, len(blocks)), context, initializer=_start_worker, initargs=(make_basis,)
    ) as pool:
        yield from pool.map(_reduce_in_worker, blocks, [atom_energies] * len(blocks))
