"""A folder with a launch script for a user's own system."""

from __future__ import annotations

import pprint
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import parameters as EMT_PARAMETERS  # noqa: N812

from aiida_oodal.engine.errors import OodalError, suggest
from aiida_oodal.engine.exchange.read import read_structures
from aiida_oodal.engine.labels import ENERGY, FORCES
from aiida_oodal.templates import get_template

#: Names of the script and of the folder with structures, in the folder.
SCRIPT, STRUCTURES = 'launch.py', 'structures'
#: Edges that the cells of walkers and of the first structures have at least, angstrom.
_LARGE, _SMALL = 16.0, 7.0
#: Atoms that the first structures have at most, where the cell that was given allows it.
_MOST_ATOMS = 64
#: How many first structures are made of each structure, for each of its elements.
_COUNT = 20
#: Labels of clusters after which a campaign ends.
_BUDGET = 200
#: Lines of the script are as long as this at most.
_WIDTH = 100


@dataclass(frozen=True)
class Labeller:
    """A labeller that a script can be written for.

    :param entry_point: of the WorkChain.
    :param label: its overrides.
    :param code: label of its code, without the computer.
    :param free_atoms: whether it labels an isolated atom that is not periodic.
    """

    entry_point: str
    label: dict[str, Any]
    code: str = ''
    free_atoms: bool = True


def choose_labeller(name: str, elements: Sequence[str]) -> Labeller:
    """Return what a short name of a labeller stands for.

    :param name: ``emt``, ``xtb``, ``pw``, ``outside``, or an ASE calculator as ``package.module:Class``.
    :param elements: that it will label.
    :raises OodalError: if there is none of this name.
    """
    known = {
        'emt': Labeller('oodal.label.ase', {'calculator': {'calculator': 'emt'}}),
        'xtb': Labeller(
            'oodal.label.ase',
            {
                'calculator': {
                    'calculator': 'tblite.ase:TBLite',
                    'parameters': {'method': 'GFN1-xTB', 'electronic_temperature': 3000.0, 'verbosity': 0},
                }
            },
        ),
        'pw': Labeller(
            'oodal.label.pw',
            {
                'elements': list(elements),
                'protocol': 'balanced',
                'workflow': {'pseudo_family': 'SSSP/1.3/PBEsol/efficiency'},
                'batch_size': 8,
            },
            code='pw.x',
            free_atoms=False,
        ),
        'outside': Labeller('oodal.label.outside', {'level': 'say which program and which settings'}, free_atoms=False),
    }
    if name in known:
        return known[name]
    if ':' not in name:
        raise OodalError(
            f'labeller {name!r} is not known; {suggest(name, known)}, or give an ASE calculator as package.module:Class'
        )
    return Labeller('oodal.label.ase', {'calculator': {'calculator': name, 'parameters': {}}}, free_atoms=False)


def read_starts(structures: Sequence[Path], elements: Sequence[str]) -> dict[str, Atoms]:
    """Return the structures that walkers begin with: those of files, and the crystals of elements.

    :param structures: files with one structure each.
    :param elements: at most one where there is no file; which crystal several form nobody can guess.
    :return: by names that are fit for those of walkers: of the files, or of the elements.
    :raises OodalError: if there is neither, if a file cannot be read or has several structures, or if an element has
        no cubic crystal in ASE.
    """
    if not structures and not elements:
        raise OodalError('give --structure FILE or --element SYMBOL')
    if not structures and len(elements) > 1:
        raise OodalError(
            f'--element {" --element ".join(elements)}: which crystal they form together is not known: give a file of '
            'the alloy by --structure, too, or begin with examples/launch_alloy.py'
        )
    starts: dict[str, Atoms] = {}
    for path in structures:
        starts[_name_start(path.name.split('.')[0], starts)] = read_start(path)
    for element in dict.fromkeys(elements):
        starts[_name_start(element, starts)] = _make_crystal(element)
    return starts


def _name_start(wanted: str, taken: Mapping[str, Atoms]) -> str:
    """Return a name that AiiDA takes for the begin of a link label, and that is not taken."""
    name = re.sub('[^0-9A-Za-z]+', '_', wanted).strip('_')
    name = name if name.isidentifier() else f'structure_{name}'.strip('_')
    numbered = (f'{name}_{number}' for number in range(2, len(taken) + 2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _make_crystal(element: str) -> Atoms:
    try:
        return bulk(element, cubic=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise OodalError(
            f'ASE knows no cubic crystal of {element!r} ({error}): give a file of it by --structure; '
            'examples/launch_alloy.py shows how to make an alloy'
        ) from error


def read_start(path: Path) -> Atoms:
    """Return the structure of a file, for walkers to begin with, without what else the file says of it.

    :raises OodalError: if the file cannot be read, has several structures, or one that is not periodic.
    """
    found = read_structures(path).structures
    if len(found) != 1:
        raise OodalError(
            f'{path}: there are {len(found)} structures in it, and walkers begin with one. Write each that you want to '
            f'a file of its own, and give them all: ase convert -n 0 {path} start.extxyz'
        )
    atoms = found[0]
    if not atoms.pbc.any():
        raise OodalError(
            f'{path}: no axis is periodic: give a cell, as in `atoms.center(vacuum=8); atoms.pbc = True` for a '
            'molecule in a box'
        )
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def write_script(
    folder: Path,
    starts: Mapping[str, Atoms],
    *,
    name: str,
    computer: str,
    labeller: str,
    temperatures: Sequence[float],
    protocol: str,
    labelled: Path | None = None,
    validation: Path | None = None,
) -> Path:
    """Write the script, the structures and the labels that it reads, and return the path of the script.

    :param starts: the structures that walkers begin with, by name.
    :param name: label of the campaign.
    :param temperatures: one walker of each structure is heated from 300 K to each of these, kelvin.
    :param labelled: labelled structures of the user's own, to be learned.
    :param validation: others, which are never learned, and by which potentials are judged.
    :raises OodalError: if the script is there already, or something that is asked for is not known.
    """
    path = folder / SCRIPT
    if path.exists():
        raise OodalError(f'{path} is there already: give another folder, or move it away')
    if protocol not in ('quick', 'balanced', 'careful'):
        raise OodalError(f'there is no protocol {protocol!r}; {suggest(protocol, ("quick", "balanced", "careful"))}')
    elements = sorted({symbol for atoms in starts.values() for symbol in atoms.symbols})
    chosen = choose_labeller(labeller, elements)
    if labeller == 'emt' and (unknown := sorted(set(elements) - set(EMT_PARAMETERS))):
        raise OodalError(f'emt does not know {", ".join(unknown)}, only {", ".join(EMT_PARAMETERS)}')
    own = {key: given for key, given in (('labelled', labelled), ('validation', validation)) if given is not None}
    for given in own.values():
        found = read_structures(given).structures
        if not any(ENERGY in frame.info and FORCES in frame.arrays for frame in found):
            raise OodalError(f'{given}: no structure has {ENERGY} and {FORCES}')
    files = {key: f'{key}{"".join(given.suffixes)}' for key, given in own.items()}
    repeats = {
        start: (_repeats(atoms, _SMALL, most=_MOST_ATOMS), _repeats(atoms, _LARGE)) for start, atoms in starts.items()
    }
    sizes = sorted({len(starts[start]) * int(np.prod(large)) for start, (_, large) in repeats.items()})
    walkers = {
        f'{f"{start}_" if len(starts) > 1 else ""}to_{end:.0f}K': (
            start,
            {'temperature': [300, round(end)], 'steps': 20000}
            # only a cell that is periodic along all axes has a pressure
            | ({} if starts[start].pbc.all() else {'ensemble': 'nvt'}),
        )
        for start in starts
        for end in temperatures
    }
    n_first = _COUNT * sum(len(set(atoms.symbols)) for atoms in starts.values())
    text = get_template('launch/campaign.py.j2').render(
        title=f'A campaign on {", ".join(atoms.get_chemical_formula() for atoms in starts.values())}',
        file=SCRIPT,
        # `verdi run` leaves the folder out of `__file__`
        folder=repr(str(folder.resolve())),
        name=name,
        computer=computer,
        code=f'{chosen.code}@{computer}' if chosen.code else '',
        labeller=chosen.entry_point,
        label=pprint.pformat(chosen.label, width=_WIDTH, sort_dicts=False),
        walkers=walkers,
        budget=_BUDGET + (0 if labelled is not None else n_first),
        structures=STRUCTURES,
        labelled=files.get('labelled', ''),
        validation=files.get('validation', ''),
        count=_COUNT,
        elements=elements,
        free_atoms=chosen.free_atoms,
        repeats=repeats,
        n_atoms=f'{sizes[0]} to {sizes[-1]}' if len(sizes) > 1 else sizes[0],
        protocol=protocol,
    )
    (folder / STRUCTURES).mkdir(parents=True, exist_ok=True)
    for start, atoms in starts.items():
        ase.io.write(folder / STRUCTURES / f'{start}.extxyz', atoms)
    for key, name in files.items():
        (folder / name).write_bytes(own[key].read_bytes())
    path.write_text(text, encoding='utf-8')
    return path


def _repeats(atoms: Atoms, edge: float, most: int | None = None) -> tuple[int, int, int]:
    """Return how often a cell is repeated so that opposite faces are as far apart as asked for.

    :param edge: distance of opposite faces, angstrom; axes that are not periodic are not repeated.
    :param most: atoms; axes are repeated less often rather than to have more, the longest first.
    """
    volume = atoms.cell.complete().volume
    heights = [volume / np.linalg.norm(np.cross(*np.delete(atoms.cell.complete(), axis, axis=0))) for axis in range(3)]
    repeats = [
        int(np.ceil(edge / height - 1e-6)) if periodic else 1
        for height, periodic in zip(heights, atoms.pbc, strict=True)
    ]
    while most is not None and len(atoms) * np.prod(repeats) > most and max(repeats) > 1:
        longest = max((axis for axis in range(3) if repeats[axis] > 1), key=lambda axis: repeats[axis] * heights[axis])
        repeats[longest] -= 1
    return repeats[0], repeats[1], repeats[2]
