"""The interfaces of a potential for MD and for carving, and the registry of the kinds of potentials.

A new family of potentials is a module with two factories, ``open_forces`` and ``open_grader``. A potential names that
module in its description, or, of those that come with the engine, its ``kind``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .errors import OodalError

#: ``kind`` of a potential in a job -> module whose ``open_forces`` takes the description of the potential and the job's
#: folder and returns a :class:`ForceEvaluator`. Modules are imported when their kind is asked for.
FORCES = {'ace': 'aiida_oodal.engine.ace.forces', 'mace': 'aiida_oodal.engine.mace.forces'}
#: The same for ``open_grader``, which returns a :class:`Grader`.
GRADERS = {'ace': 'aiida_oodal.engine.ace.grader', 'mace': 'aiida_oodal.engine.mace.grader'}


@dataclass(frozen=True)
class Neighbours:
    """Hold LAMMPS's full neighbour list of one process, valid until LAMMPS builds the next one.

    Atoms 0..n_local-1 are real; the others are their periodic images (ghosts).

    :param types: LAMMPS types from 1, shape (n_all,).
    :param origins: index of the real atom that each atom is or is an image of, shape (n_all,).
    :param indices: neighbours of all real atoms one after the other, shape (n_pairs,); they lie within cutoff + skin.
    :param offsets: neighbours of atom i are ``indices[offsets[i]:offsets[i + 1]]``, shape (n_local + 1,).
    """

    types: NDArray[np.int64]
    origins: NDArray[np.int64]
    indices: NDArray[np.int32]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Hold energy, forces, virial and gamma for one set of positions.

    :param energy: potential energy [eV].
    :param forces: forces on the real atoms, those on their images folded back [eV/angstrom], shape (n_local, 3).
    :param virial: sum of r_i f_i, positive under compression [eV], order xx yy zz xy xz yz, shape (6,).
    :param gamma: extrapolation grade of the real atoms, shape (n_local,), or None when it was not asked for.
    """

    energy: float
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]
    gamma: NDArray[np.float64] | None


class ForceEvaluator(Protocol):
    """A potential that can drive MD."""

    @property
    def cutoff(self) -> float:
        """Range of the potential [angstrom]."""

    def set_neighbours(self, neighbours: Neighbours) -> None:
        """Take the neighbour list that holds from now on."""

    def compute(self, positions: NDArray[np.float64], *, gamma: bool) -> Evaluation:
        """Evaluate positions of real atoms and images [angstrom], shape (n_all, 3), with gamma only if asked."""


@dataclass(frozen=True)
class Grades:
    """Grades of the atoms of one cell.

    :param gamma: extrapolation grade of every atom, shape (n_atoms,), dimensionless.
    :param descriptor: descriptor of the environment of atom 0, the centre, shape (n_features,). With an active set it
        has coordinates in which the active set is the unit matrix.
    :param scores: score of every atom, shape (n_atoms,); None if the potential has gamma only.
    :param threshold: threshold of the score for the element of the centre: a chosen share of known atoms stays below
        it.
    """

    gamma: NDArray[np.float64]
    descriptor: NDArray[np.float64]
    scores: NDArray[np.float64] | None = None
    threshold: float | None = None


class Grader(Protocol):
    """A potential that grades the atoms of a cell of any size."""

    @property
    def cutoff(self) -> float:
        """Range of the potential [angstrom]."""

    @property
    def has_active_set(self) -> bool:
        """Whether descriptors are coordinates of an active set, so that MaxVol can choose among them."""

    def grade(self, cells: Sequence[Atoms], *, centres_only: bool = False) -> list[Grades | str]:
        """Return the grades of each cell, or a sentence that says why it cannot be evaluated.

        :param centres_only: whether only the grades of atom 0 are needed; the arrays may be shorter then.
        """


def open_forces(potential: Mapping[str, Any], folder: Path) -> ForceEvaluator:
    """Open the potential that a job describes, to drive MD.

    :param potential: ``kind``, a key of :data:`FORCES`, or ``module``, which has ``open_forces`` and is installed where
        the job runs; and what the factory takes.
    :param folder: where the files of the job are.
    :raises OodalError: if the kind is unknown, or files are missing or do not fit together.
    """
    evaluator: ForceEvaluator = _find_module(FORCES, potential).open_forces(potential, folder)
    return evaluator


def open_grader(potential: Mapping[str, Any], folder: Path) -> Grader:
    """Open the potential that a job describes, to grade cells; as :func:`open_forces`."""
    grader: Grader = _find_module(GRADERS, potential).open_grader(potential, folder)
    return grader


def _find_module(modules: Mapping[str, str], potential: Mapping[str, Any]) -> Any:
    if 'module' in potential:
        name = read_word(potential, 'module')
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise OodalError(f'job: module {name!r} of the potential: {error}; install it where the job runs') from None
    kind = read_word(potential, 'kind')
    if kind not in modules:
        raise OodalError(f'job: potential kind {kind!r} is unknown; there are: {", ".join(modules)}')
    return importlib.import_module(modules[kind])


def read_word(values: Mapping[str, Any], key: str) -> str:
    """Return the text under a key of a job.

    :raises OodalError: if there is none.
    """
    if not isinstance(value := values.get(key), str):
        raise OodalError(f'job: {key} must be a string, but is {value!r}')
    return value
