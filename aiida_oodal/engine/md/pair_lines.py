"""Forces by any pair style, given as lines of LAMMPS and files: what such lines may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ase.data import atomic_numbers

from aiida_oodal.engine import files
from aiida_oodal.engine.errors import OodalError

__all__ = ('COMMANDS', 'check_arguments', 'check_lines', 'extend_lines', 'pair_styles', 'sets_masses')

#: What may stand between the structure and the first step; the rest of the script is ours.
COMMANDS = ('pair_style', 'pair_coeff', 'pair_modify', 'kspace_style', 'kspace_modify', 'comm_modify', 'plugin', 'mass')

#: Switches of LAMMPS that the job sets itself, or with which nothing would run.
_SWITCHES = frozenset(
    (
        *('-in', '-i', '-log', '-l', '-nocite', '-nc', '-help', '-h', '-skiprun', '-sr', '-partition', '-p'),
        *('-restart2data', '-r2data', '-restart2dump', '-r2dump', '-restart2info', '-r2info'),
    )
)

_OURS = frozenset(
    (
        files.INPUT_FILE,
        files.STRUCTURE_FILE,
        files.INITIAL_RESTART_FILE,
        files.LOG_FILE,
        files.SNAPSHOTS_FILE,
        files.FINAL_FILE,
        files.FINAL_RESTART_FILE,
        files.FINAL_DATA_FILE,
        *files.PERIODIC_RESTART_FILES,
    )
)


def check_lines(lines: Sequence[str], elements: Sequence[str], files: Iterable[str] = ()) -> None:
    """Refuse lines that cannot define forces, files that no line reads, and elements that are none.

    :param lines: LAMMPS commands, one each.
    :param elements: element of each LAMMPS type.
    :param files: names of the files that travel with the job.
    :raises OodalError: naming the line or the file.
    """
    commands = [line.split() for line in lines]
    for number, (line, words) in enumerate(zip(lines, commands, strict=True), start=1):
        if not words or len(line.splitlines()) != 1 or line.rstrip().endswith('&'):
            raise OodalError(f'pair line {number}: {line!r} must be one whole command')
        if words[0] not in COMMANDS:
            raise OodalError(f'pair line {number}: {words[0]!r} does not belong here; allowed: {", ".join(COMMANDS)}')
    for command in ('pair_style', 'pair_coeff'):
        if all(words[0] != command for words in commands):
            raise OodalError(f'the pair lines have no {command}: nothing would give forces')
    used = {word for words in commands for word in words}
    for name in files:
        if name in _OURS or '/' in name:
            raise OodalError(f'file {name!r} of the pair style: that name is taken in the job folder; rename it')
        if name not in used:
            raise OodalError(f'file {name!r} is given, but no pair line reads it; the lines must name it as it is')
    if unknown := [element for element in elements if element not in atomic_numbers]:
        raise OodalError(f'{unknown[0]!r} is no chemical symbol; elements names the element of each LAMMPS type')
    if not elements:
        raise OodalError('elements is empty; it names the element of each LAMMPS type')


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse words on the command line of LAMMPS that the job sets itself.

    :raises OodalError: naming the word.
    """
    for word in arguments:
        if not isinstance(word, str) or not word.strip():
            raise OodalError(f'pair.arguments: {word!r} must be a word, one entry for each')
        if word in _SWITCHES:
            raise OodalError(f'pair.arguments: {word!r} is set by the job itself; leave it out')


def pair_styles(lines: Sequence[str]) -> list[str]:
    """Return the pair styles that the lines ask for; of a hybrid one, only its own name."""
    return [words[1] for words in (line.split() for line in lines) if words[0] == 'pair_style' and len(words) > 1]


def sets_masses(lines: Sequence[str]) -> bool:
    """Return whether the lines give types their masses."""
    return any(line.split()[:1] == ['mass'] for line in lines)


def extend_lines(lines: Sequence[str], elements: Sequence[str], types: Sequence[str]) -> list[str]:
    """Return the lines for more types than they were written for, as atoms of one element with two masses need.

    ``pair_coeff * * ...`` holds for any number of types; where such a line ends in the element of each type (or NULL),
    those of the new types are added.

    :param elements: element of each type that the lines were written for.
    :param types: element of each type of the run; it begins with ``elements``.
    :raises OodalError: if a line cannot be extended.
    """
    if len(types) == len(elements):
        return list(lines)
    more = types[len(elements) :]
    extended = []
    for line in lines:
        words = line.split()
        if words[0] == 'mass' or (words[0] == 'pair_coeff' and words[1:3] != ['*', '*']):
            raise OodalError(
                f'atoms of {", ".join(sorted(set(more)))} have several masses, which need a type each, and the pair '
                f'line {line!r} is for types by number: name the element once for each mass in pair.elements, and give '
                'these types their lines'
            )
        names = words[-len(elements) :]
        if words[0] == 'pair_coeff' and _maps_types(names, elements):
            line = ' '.join([*words, *(names[list(elements).index(element)] for element in more)])
        extended.append(line)
    return extended


def _maps_types(words: Sequence[str], elements: Sequence[str]) -> bool:
    """Tell whether words name the element of each type, or NULL where another style has the type."""
    return any(word != 'NULL' for word in words) and all(
        word in (element, 'NULL') for word, element in zip(words, elements, strict=True)
    )
