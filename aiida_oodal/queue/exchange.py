"""Write structures of the queue to files for labelling elsewhere, and read labels from files into the queue."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from aiida import orm
from ase import Atoms

from aiida_oodal.calculations.labels import import_labels
from aiida_oodal.data import StructureSetData, get_structures, is_cut
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.read import iterate_structures, name_place
from aiida_oodal.engine.exchange.stream import Failure
from aiida_oodal.engine.label.given import read_label, take_label
from aiida_oodal.engine.label.level import OUTSIDE
from aiida_oodal.engine.labels import ENERGY, FORCES, QUEUE_KEY

from .entry import Entry, QueueStatus
from .store import complete, get_entries

#: How files are called on the command line, and what is written of each.
FORMATS = {
    'extxyz': 'one extended XYZ file with all structures',
    'poscar': 'KEY/POSCAR for each structure',
    'qe': 'KEY/pw.in for each structure, an input of Quantum ESPRESSO to be completed',
}
#: Distance of k-points [1/angstrom, without 2 pi] in inputs for whole cells; clusters get the Gamma point.
_KSPACING = 0.04
#: Empty space on both sides of a structure along axes that are not periodic, in formats that know periodic cells only
#: [angstrom].
_VACUUM = 10.0
#: Labels that differ by less [eV, eV/angstrom] are the same.
_SAME = 1e-6


def export_entries(entries: Sequence[Entry], path: Path, kind: str) -> list[Path]:
    """Write structures of the queue with their keys, by which their labels are matched later.

    :param path: the file for ``extxyz``, else the folder that gets a folder for each structure.
    :param kind: one of :data:`FORMATS`.
    :return: what was written.
    :raises OodalError: for another kind, or if an entry has no level of theory yet.
    """
    require_format(kind)
    if homeless := [entry.key for entry in entries if not entry.level]:
        raise OodalError(
            f'{len(homeless)} entries, the first {homeless[0]}, have no level of theory yet: say what will compute '
            'them, for instance --theory "PBE, ORCA 6.0"'
        )
    nodes = {entry.key: entry.load_node() for entry in entries}
    if kind != 'extxyz':
        return [_write_input(path / key, key, node, kind) for key, node in nodes.items()]
    frames = []
    for key, node in nodes.items():
        (atoms,) = get_structures(node)
        frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info={QUEUE_KEY: key}))
    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, frames, format='extxyz')
    return [path]


def read_labels(entries: Sequence[Entry]) -> dict[str, Atoms]:
    """Return the labelled structures of entries, by key.

    :param entries: those that have no label are left out.
    """
    wanted: dict[str, set[str]] = {}
    for entry in entries:
        if entry.label is not None:
            wanted.setdefault(entry.label, set()).add(entry.key)
    return {
        atoms.info[QUEUE_KEY]: atoms
        for label, keys in wanted.items()
        for atoms in orm.load_node(label)
        if atoms.info[QUEUE_KEY] in keys
    }


def export_labels(entries: Sequence[Entry], path: Path) -> int:
    """Write labels to an extended XYZ file, in the order of the entries.

    Each structure has ``REF_energy``, ``REF_forces``, ``REF_stress`` where there is one, ``queue_key``, ``theory``, the
    level in words, and for a cluster ``force_mask``.

    :param entries: those that have no label are left out.
    :return: how many were written.
    :raises OodalError: if none has a label.
    """
    labels = read_labels(entries)
    if not labels:
        raise OodalError('none of these entries has a label; `aiida-oodal queue list` shows what there is')
    frames = []
    for entry in entries:
        if entry.key in labels:
            frames.append(labels[entry.key].copy())
            frames[-1].info['theory'] = entry.theory
    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, frames, format='extxyz')
    return len(frames)


def require_format(kind: str) -> None:
    """Refuse a format that is not written.

    :raises OodalError: if it is not one of :data:`FORMATS`.
    """
    if kind not in FORMATS:
        raise OodalError(f'{kind!r} is no format for export; there are {", ".join(FORMATS)}')


def _write_input(folder: Path, key: str, node: orm.StructureData, kind: str) -> Path:
    """Write the input of one structure into a folder of its own."""
    (atoms,) = get_structures(node)
    folder.mkdir(parents=True, exist_ok=True)
    if kind == 'poscar':
        path, stream = folder / 'POSCAR', io.StringIO()
        ase.io.write(stream, _put_into_box(atoms), format='vasp', direct=True, sort=True)
        _, _, rest = stream.getvalue().partition('\n')  # the elements come first, and once more below
        path.write_text(f'{key}\n{rest}', encoding='utf-8')
        return path
    path = folder / 'pw.in'
    # A cluster is large and its surroundings are cut: the Gamma point is enough.
    gamma_only = is_cut(node) or not atoms.pbc.any()
    points: dict[str, Any] = {'kpts': None} if gamma_only else {'kspacing': _KSPACING}
    data = {
        'control': {'calculation': 'scf', 'title': key, 'prefix': key, 'tprnfor': True, 'tstress': True},
        'system': {'ecutwfc': 60.0},
    }
    names = {symbol: f'{symbol}.UPF' for symbol in set(atoms.get_chemical_symbols())}
    boxed = _put_into_box(atoms)
    ase.io.write(path, boxed, format='espresso-in', input_data=data, pseudopotentials=names, **points)
    return path


@dataclass(frozen=True)
class Refusal:
    """A structure of a file that gives no label.

    :param place: where in the file it is, in words.
    :param reason: why.
    """

    place: str
    reason: str


@dataclass
class Import:
    """The result of importing a labelled file.

    :param accepted: keys of the entries that have a label now, or would have.
    :param refused: what gave none.
    :param known: keys of entries that had this label already.
    :param labels: the labelled sets, one for each level of theory.
    """

    accepted: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    labels: list[StructureSetData] = field(default_factory=list)


def import_file(path: Path, *, dry_run: bool = False) -> Import:
    """Enter the labels of a file: each must name its entry by ``queue_key`` and have the geometry that was asked for.

    Structures that do not match are refused with the reason; the others are entered. The labels are made by
    :func:`.import_labels`, from the structures in the queue and from what was in the file.

    :param path: extended XYZ, also compressed, or a structure set.
    :param dry_run: change nothing, only return what would be entered.
    :raises OodalError: if the file cannot be read at all.
    """
    outcome = Import()
    frames = list(_read_frames(path, outcome))
    entries = get_entries(atoms.info[QUEUE_KEY] for _, atoms in frames)
    taken: dict[str, Atoms] = {}
    for place, atoms in frames:
        key = atoms.info[QUEUE_KEY]
        try:
            if key in taken:
                raise OodalError(f'entry {key} occurs earlier in the file: one label is enough')
            entry = _require_entry(entries, key)
            labelled = take_label(get_structures(entry.load_node())[0], atoms)
            if entry.status is QueueStatus.LABELLED:
                _require_same_label(entry, labelled)
                outcome.known += [] if key in outcome.known else [key]
                continue
        except OodalError as error:
            outcome.refused.append(Refusal(place, str(error)))
        else:
            taken[key] = atoms
    outcome.accepted = list(taken)
    if not dry_run:
        by_level: dict[str, dict[str, Atoms]] = {}
        for key, atoms in taken.items():
            by_level.setdefault(entries[key].theory, {})[key] = atoms
        outcome.labels = [_enter(path, frames, theory, entries) for theory, frames in sorted(by_level.items())]
    return outcome


def _read_frames(path: Path, outcome: Import) -> Iterator[tuple[str, Atoms]]:
    """Yield the structures that name an entry, and where they are in the file; note the others.

    :raises OodalError: if the file cannot be read at all.
    """
    for item in iterate_structures(path):
        place = name_place(item)
        if isinstance(item, Failure):
            outcome.refused.append(Refusal(place, item.message))
        elif not isinstance(item.atoms.info.get(QUEUE_KEY), str):
            outcome.refused.append(Refusal(place, f'it does not name its entry: {QUEUE_KEY}=... is missing'))
        else:
            yield place, item.atoms


def _require_entry(entries: Mapping[str, Entry], key: str) -> Entry:
    """Return the entry of a key if a label from outside may be entered there.

    :raises OodalError: if not, saying why.
    """
    if key not in entries:
        raise OodalError(f'{key} is no entry of this queue')
    entry = entries[key]
    if entry.labeller != OUTSIDE:
        if not entry.level:
            raise OodalError(
                f'entry {key} has no level of theory yet: `aiida-oodal queue export --theory ...` gives it one'
            )
        raise OodalError(
            f'entry {key} belongs to the level of theory {entry.theory!r} ({entry.labeller}): a label from elsewhere '
            'would be of another one'
        )
    if entry.status in (QueueStatus.REJECTED, QueueStatus.FAILED):
        raise OodalError(f'entry {key} is {entry.status} ({entry.reason}): `aiida-oodal queue retry {key}` first')
    return entry


def _require_same_label(entry: Entry, labelled: Atoms) -> None:
    """Refuse another label than the one that there is.

    :raises OodalError: if they differ.
    """
    before = read_labels([entry])[entry.key]
    energies = [atoms.info[ENERGY] for atoms in (before, labelled)]
    apart = max(
        abs(energies[0] - energies[1]), float(np.abs(before.arrays[FORCES] - labelled.arrays[FORCES]).max(initial=0.0))
    )
    if apart > _SAME:
        raise OodalError(
            f'entry {entry.key} has another label already (energy {energies[0]:.6f} eV, here {energies[1]:.6f} eV): a '
            'label is never replaced'
        )


def _enter(path: Path, frames: Mapping[str, Atoms], theory: str, entries: Mapping[str, Entry]) -> StructureSetData:
    """Make the labels of entries of one level, and note them in the queue.

    :raises OodalError: if they cannot be made.
    """
    content = StructureSetData([_keep_label(atoms) for atoms in frames.values()])
    content.label, content.description = path.name, f'labels from outside, read from {path.resolve()}'
    nodes = {key: entries[key].load_node() for key in frames}
    labels, process = import_labels.run_get_node(content, orm.Str(theory), **nodes)
    if not process.is_finished_ok:
        raise OodalError(f'{path}: {process.exit_message}')
    complete(dict.fromkeys(frames, labels.uuid))
    made: StructureSetData = labels
    return made


def _keep_label(atoms: Atoms) -> Atoms:
    """Return a structure with its key and its label, and nothing else that a file may hold."""
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.info[QUEUE_KEY] = atoms.info[QUEUE_KEY]
    return read_label(atoms).put_into(bare)


def _put_into_box(atoms: Atoms) -> Atoms:
    """Return a structure in a periodic cell, with vacuum along the axes that are not periodic."""
    boxed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    if open_axes := [axis for axis in range(3) if not atoms.pbc[axis]]:
        boxed.center(vacuum=_VACUUM, axis=open_axes)
    return boxed
