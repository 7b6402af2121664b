"""Checks of the data and the settings of a fit, on the host before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.atom_energies import find_atom_energies
from aiida_oodal.engine.linear.pairs import Pair, shortest_distances, unmet
from aiida_oodal.engine.linear.targets import Target, make_target, named
from aiida_oodal.engine.space.geometry import Lattice
from aiida_oodal.engine.structures import StructureSet

from .fit import Learned, unmet_message
from .settings import AceFitSettings

#: Atoms whose neighbours are looked for on the host, at most, before the question is left to the job.
_MOST_ATOMS = 3000


def check_training(
    training: Mapping[str, StructureSet],
    settings: AceFitSettings,
    *,
    validation: StructureSet | None = None,
    anchors: Mapping[str, StructureSet] | None = None,
    learned: Learned | None = None,
    awaited: StructureSet | None = None,
) -> str | None:
    """Return what is wrong with the data of a fit, or None.

    Does not need pyace. Checks that take more than about a second on large data are left to the job: whether elements
    are neighbours is decided only if a few thousand atoms show it.

    :param training: labelled sets by name.
    :param validation: labelled set that is not trained on.
    :param anchors: further labelled sets that are judged, by name.
    :param learned: the potential of the round before.
    :param awaited: structures that will be labelled and trained on, too.
    """
    before, coming = learned or Learned(), list(awaited or [])
    try:
        targets = [
            target for name, structures in training.items() for target in read_targets(name, structures, settings)
        ]
        if not targets and not coming:
            return 'there is no training set: give at least one labelled set'
        largest, smallest = (max(cutoff, before.cutoff) for cutoff in (settings.largest_cutoff, settings.cutoff))
        structures = [(target.name, target.atoms) for target in targets]
        structures += [(f'structure {index}', atoms) for index, atoms in enumerate(coming)]
        _check_density(structures, largest)
        if not coming:
            _check_weights(targets, settings)
            find_atom_energies(
                targets,
                largest,
                given=settings.reference_energies,
                learned=before.atom_energies,
                fit=settings.fit_atom_energies,
            )
        known = {symbol for _, atoms in structures for symbol in atoms.get_chemical_symbols()}
        judged = dict(anchors or {}) | ({} if validation is None else {'validation': validation})
        for name, labelled in judged.items():
            check_elements(name, labelled.symbols, known)
            read_targets(name, labelled, settings)
        if settings.unmet_pairs == 'refuse' and (missing := _unmet_for_certain(structures, smallest)):
            return unmet_message(missing, smallest)
    except OodalError as error:
        return str(error)
    return None


def read_targets(name: str, structures: StructureSet, settings: AceFitSettings) -> list[Target]:
    """Read the labels of a set.

    :raises OodalError: if it is empty, or a structure lacks its label; the first is named, and how many there are.
    """
    if len(structures) == 0:
        raise OodalError(f'{name}: the set is empty; leave it out')
    targets, problems = [], []
    for index, atoms in enumerate(structures):
        try:
            targets.append(make_target(atoms, settings, f'{name}: structure {index}'))
        except OodalError as error:
            problems.append(str(error))
    if problems:
        others = f' (and {len(problems) - 1} more of {len(structures)} structures)' if len(problems) > 1 else ''
        raise OodalError(problems[0] + others)
    return targets


def check_elements(name: str, asked: tuple[str, ...], known: set[str]) -> None:
    """Refuse a set with elements that the potential will not know.

    :raises OodalError: naming them.
    """
    if unknown := [symbol for symbol in asked if symbol not in known]:
        raise OodalError(
            f'{name} has {" ".join(unknown)}, which the training data ({" ".join(sorted(known))}) lack: train on these '
            'elements too, or choose other data'
        )


def _check_weights(targets: list[Target], settings: AceFitSettings) -> None:
    """Refuse data in which no atom of an element enters the active set."""
    counts: dict[str, int] = {}
    for target in targets:
        for symbol, is_core in zip(target.atoms.get_chemical_symbols(), target.core, strict=True):
            counts[symbol] = counts.get(symbol, 0) + int(is_core)
    if hidden := sorted(symbol for symbol, count in counts.items() if count == 0):
        raise OodalError(
            f'{", ".join(hidden)}: no atom of this element is in the core of a cluster, and weights = '
            f"{settings.weights!r} leaves all others out of the active set; add structures, or use weights='full'"
        )


def _check_density(structures: list[tuple[str, Atoms]], cutoff: float) -> None:
    """Refuse a periodic cell of several atoms of which none is within the cutoff of another.

    :param structures: each with its name.
    :raises OodalError: naming it.
    """
    sphere = 4.0 / 3.0 * np.pi * cutoff**3
    for name, atoms in structures:
        if len(atoms) < 2 or not atoms.pbc.all():
            continue
        with named(name, atoms):
            volume = float(abs(np.linalg.det(Lattice.of(atoms).vectors)))
        if volume / len(atoms) < sphere:
            continue
        distances = shortest_distances([(name, atoms[: min(len(atoms), _MOST_ATOMS)])], cutoff)
        if len(unmet(distances)) == len(distances):
            raise OodalError(
                f'{name}: {len(atoms)} atoms in {volume:.0f} angstrom^3, none within the cutoff of '
                f'{cutoff:g} angstrom of another: is the lattice in angstrom?'
            )


def _unmet_for_certain(structures: list[tuple[str, Atoms]], cutoff: float) -> list[Pair]:
    """Return pairs of elements that never meet, or none if that takes more than a few thousand atoms to tell."""
    elements = sorted({symbol for _, atoms in structures for symbol in atoms.get_chemical_symbols()})
    missing = set(combinations_with_replacement(elements, 2))
    n_atoms = 0
    # Most pairs meet where there are most elements.
    for name, atoms in sorted(structures, key=lambda item: (-len(np.unique(item[1].numbers)), len(item[1]))):
        n_atoms += len(atoms)
        if not missing or n_atoms > _MOST_ATOMS:
            return []
        distances = shortest_distances([(name, atoms)], cutoff)
        missing -= {pair for pair, distance in distances.items() if np.isfinite(distance)}
    return sorted(missing)
