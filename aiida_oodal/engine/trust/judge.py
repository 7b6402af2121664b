"""Engine command ``judge``: how wrong a potential or an ensemble is on labelled structures, atom by atom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Evaluation, ForceEvaluator, Grader, Neighbours, open_forces, open_grader
from aiida_oodal.engine.files import JUDGED_FILE, JUDGED_VALIDATION_FILE, RESULTS_FILE
from aiida_oodal.engine.labels import FORCES, QUEUE_KEY
from aiida_oodal.engine.metrics import force_errors
from aiida_oodal.engine.space.crowding import measure_crowding
from aiida_oodal.engine.space.surroundings import find_surroundings
from aiida_oodal.engine.structures import StructureSet

from .audit import WALKER

#: Per-atom arrays of a judged structure: gamma; the length of the difference of the forces, eV/angstrom.
GAMMA, ERROR = 'gamma', 'force_error'
#: Of atoms of a set that are stored without it: position of their structure in the set.
STRUCTURE = 'structure'


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Judge ``job['structures']``, a labelled set.

    The job: ``learned``, as :func:`.open_forces` takes it; ``elements``, that it knows; ``validation``, null or a
    further labelled set; ``starts`` and ``ends``, null or sets with the first and the last structure of walkers
    (``info['walker']``). Writes ``results.json`` with ``structures``, what :func:`judge_structures` returns, and
    ``walkers``, what :func:`compare_matter` returns for each walker that is in both; ``judged.npz``, the structures
    with ``gamma`` and ``force_error``; and of the validation set ``judged_validation.npz``: these two arrays, and
    ``structure``, the position in the set of the structure of each atom.

    :raises OodalError: if a structure has no forces, or cannot be evaluated.
    """
    frames = list(StructureSet.load(folder / job['structures']))
    learned = {**job['learned'], 'elements': list(job['elements'])}
    evaluator, grader = open_forces(learned, folder), open_grader(learned, folder)
    results = judge_structures(evaluator, job['elements'], frames)
    grade_structures(grader, frames)
    for result, frame in zip(results, frames, strict=True):
        result['max_gamma'] = float(frame.arrays[GAMMA][find_core(frame)].max())
    StructureSet.from_atoms(frames).save(folder / JUDGED_FILE)
    if job.get('validation'):
        validation = list(StructureSet.load(folder / job['validation']))
        judge_structures(evaluator, job['elements'], validation)
        grade_structures(grader, validation)
        arrays = {name: np.concatenate([atoms.arrays[name] for atoms in validation]) for name in (GAMMA, ERROR)}
        arrays[STRUCTURE] = np.repeat(np.arange(len(validation)), [len(atoms) for atoms in validation])
        np.savez(folder / JUDGED_VALIDATION_FILE, allow_pickle=False, **arrays)
    starts, ends = (_load_by_walker(job.get(name), folder) for name in ('starts', 'ends'))
    walkers = {name: compare_matter(starts[name], ends[name], evaluator.cutoff) for name in ends if name in starts}
    (folder / RESULTS_FILE).write_text(json.dumps({'structures': results, 'walkers': walkers}, indent=1), 'utf-8')
    print(f'{len(frames)} structures, {len(walkers)} walkers', flush=True)


def read_validation(path: Path) -> dict[str, NDArray[Any]]:
    """Read gamma, errors and structures of the atoms of a validation set.

    :raises OodalError: if the file is damaged.
    """
    try:
        with path.open('rb') as handle, np.load(handle, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (GAMMA, ERROR, STRUCTURE)}
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise OodalError(f'{path.name} is damaged ({error}): was the disk full?') from error


def _load_by_walker(name: str | None, folder: Path) -> dict[str, Atoms]:
    return {} if name is None else {str(atoms.info[WALKER]): atoms for atoms in StructureSet.load(folder / name)}


def judge_structures(
    evaluator: ForceEvaluator, elements: Sequence[str], frames: Sequence[Atoms]
) -> list[dict[str, Any]]:
    """Compare forces with labels.

    Of clusters (``force_mask``) the core atoms count. Each frame gets the array ``force_error``: the length of the
    difference of the forces on each atom, eV/angstrom.

    :param elements: that the evaluator was opened for, in its order.
    :param frames: labelled structures.
    :return: for each frame its ``key`` in the queue, ``walker`` and ``step`` (or null), number of atoms ``n_atoms``
        and of those that count ``n_core_atoms``, ``force_rmse``, ``force_mae`` and ``force_max`` [meV/angstrom].
    :raises OodalError: if a frame has no forces, or an element is not known.
    """
    results = []
    for index, atoms in enumerate(frames):
        if FORCES not in atoms.arrays:
            raise OodalError(f'structure {index} has no {FORCES}: only labelled structures can be judged')
        forces = evaluate_cell(evaluator, elements, atoms).forces
        difference = forces - atoms.arrays[FORCES]
        if not np.isfinite(difference).all():
            raise OodalError(f'structure {index}: forces or labels are not finite')
        atoms.set_array(ERROR, np.linalg.norm(difference, axis=1))
        core = find_core(atoms)
        results.append(
            {
                'key': atoms.info.get(QUEUE_KEY),
                'walker': atoms.info.get(WALKER),
                'step': int(atoms.info['step']) if 'step' in atoms.info else None,
                'n_atoms': len(atoms),
                'n_core_atoms': int(core.sum()),
                **force_errors(forces[core], atoms.arrays[FORCES][core]),
            }
        )
    return results


def grade_structures(grader: Grader, frames: Sequence[Atoms]) -> None:
    """Give each frame the array ``gamma``.

    :raises OodalError: if a frame cannot be graded.
    """
    for index, (frame, grades) in enumerate(zip(frames, grader.grade(frames), strict=True)):
        if isinstance(grades, str):
            raise OodalError(f'structure {index}: {grades}')
        frame.set_array(GAMMA, np.asarray(grades.gamma, dtype=np.float64))


def compare_matter(start: Atoms, end: Atoms, cutoff: float) -> dict[str, Any]:
    """Say whether matter evaporated or collapsed between the first and the last structure of a walker.

    :param cutoff: within which atoms are neighbours, angstrom.
    :return: ``lonely`` and ``lonely_before``, atoms without neighbours; ``neighbours``, their number per atom
        relative to the start, as :func:`.measure_crowding` counts, null if the start had none.
    """
    counts, crowding = [], []
    for atoms in (start, end):
        centres, distances = neighbor_list('id', atoms, cutoff)
        own, mean = measure_crowding(centres, distances, len(atoms), cutoff)
        counts.append(own)
        crowding.append(mean)
    before, after = crowding
    lonely_before, lonely = (int(np.count_nonzero(own == 0)) for own in counts)
    return {
        'lonely': lonely,
        'lonely_before': lonely_before,
        'neighbours': after / before if before > 0.0 else None,
    }


def find_core(atoms: Atoms) -> NDArray[np.bool_]:
    """Return which atoms count: the core of a cluster, all of other structures."""
    core: NDArray[np.bool_] = atoms.arrays.get('force_mask', np.ones(len(atoms))) >= 0.5
    return core


def evaluate_cell(evaluator: ForceEvaluator, elements: Sequence[str], atoms: Atoms) -> Evaluation:
    """Evaluate energy and forces of one structure as MD would, without gamma.

    :param elements: that the evaluator was opened for, in its order.
    :raises OodalError: if the evaluator does not know an element.
    """
    if unknown := sorted(set(atoms.symbols) - set(elements)):
        raise OodalError(f'the potential knows {", ".join(elements)}, not {", ".join(unknown)}')
    species = np.array([elements.index(symbol) for symbol in atoms.symbols])
    (around,) = find_surroundings(atoms, species, evaluator.cutoff)
    evaluator.set_neighbours(
        Neighbours(
            types=around.species + 1,
            origins=around.origins,
            indices=np.arange(len(atoms), len(around.positions), dtype=np.int32),
            offsets=np.concatenate([[0], np.cumsum(around.counts)]),
        )
    )
    return evaluator.compute(around.positions, gamma=False)
