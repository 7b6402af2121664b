"""A user's own program as labeller: write its input for a structure, and read a label from its output."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import ase.io
import numpy as np
from ase import Atoms, units
from ase.io.formats import ioformats

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option

from .given import Label, take_label

if TYPE_CHECKING:
    from jinja2 import Template

#: What stands for the output in :attr:`ExecutableOptions.output_file` if the program writes it to its stdout.
STDOUT = 'stdout'


@dataclass(frozen=True, kw_only=True)
class ExecutableOptions(Options):
    """How a program is given a structure, and how its label is read."""

    TITLE: ClassVar[str] = 'executable'

    template: str | None = option(
        None,
        'Text of the input, a Jinja2 template; it knows key, symbols, numbers, positions [angstrom], cell [angstrom], '
        'pbc, elements and n_atoms.',
    )
    input_format: str | None = option(None, 'Instead of a template: a format that ASE writes, such as xyz or vasp.')
    input_parameters: dict[str, Any] = option(
        ..., 'Arguments of the writer of that format, such as input_data of espresso-in.', factory=dict
    )
    input_file: str = option('input.txt', 'Name of the input.', min_length=1)
    arguments: str = option(
        '{input}', 'Arguments of the command; {input} stands for the input file, {name} for the file of this name.'
    )
    output_file: str = option(STDOUT, 'Where the label is: stdout, or a file that the program writes.', min_length=1)
    output_format: str = option(
        'json',
        'How to read it: json, an object with energy, forces and, if it has one, stress; a format that ASE reads; or '
        'package.module:function, which takes the path of the file and returns such an object.',
        min_length=1,
    )
    energy_unit: str = option(
        'eV', 'Unit of energies in json and from functions: a name of ase.units, such as Hartree.', min_length=1
    )
    length_unit: str = option(
        'Ang', 'Unit of lengths in json and from functions: a name of ase.units, such as Bohr.', min_length=1
    )
    level: str = option(
        '', 'Level of theory, in words. Labels with equal words count as one level, whatever command and input are.'
    )

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, and what cannot work for any structure."""
        if (self.template is None) == (self.input_format is None):
            raise OodalError('give either template or input_format')
        if self.input_format is not None and not _has_format(self.input_format, 'can_write'):
            raise OodalError(f'input_format = {self.input_format!r} is no format that ASE writes')
        for name in (self.energy_unit, self.length_unit):
            if not isinstance(getattr(units, name, None), float):
                raise OodalError(f'{name!r} is no unit of ase.units, such as eV, Hartree, Ang, Bohr')
        if self.output_format != 'json':
            if ':' in self.output_format:
                _find_function(self.output_format)
            elif not _has_format(self.output_format, 'can_read'):
                raise OodalError(
                    f'output_format = {self.output_format!r} is neither json nor a format that ASE reads nor '
                    'package.module:function'
                )
        render_input(self, Atoms('H2', positions=[[0, 0, 0], [0, 0, 0.74]], cell=[9, 9, 9], pbc=True), 'q0')


def render_input(options: ExecutableOptions, atoms: Atoms, key: str) -> str:
    """Return the input of a structure.

    :param key: of its entry in the queue.
    :raises OodalError: if the template asks for something that there is not, or the format cannot hold the structure.
    """
    try:
        if options.template is not None:
            return _compile(options.template).render(
                key=key,
                symbols=atoms.get_chemical_symbols(),
                numbers=atoms.numbers.tolist(),
                positions=atoms.positions.tolist(),
                cell=atoms.cell.array.tolist(),
                pbc=atoms.pbc.tolist(),
                elements=sorted(set(atoms.get_chemical_symbols())),
                n_atoms=len(atoms),
            )
        stream = io.StringIO()
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        ase.io.write(stream, bare, format=options.input_format, **options.input_parameters)
        return stream.getvalue()
    except OodalError:
        raise
    except Exception as error:  # what Jinja2 and the writers of ASE raise
        what = 'the template' if options.template is not None else f'format {options.input_format!r}'
        raise OodalError(f'{what} gives no input ({type(error).__name__}: {error})') from error


def read_output(options: ExecutableOptions, atoms: Atoms, content: bytes) -> Atoms:
    """Return the structure with the label that a program found.

    :param atoms: that it was given.
    :param content: of its output.
    :raises OodalError: if the output cannot be read, has no label, or is of another structure.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / Path(options.output_file).name
        path.write_bytes(content)
        try:
            if ':' in options.output_format:
                return _make_label(options, _find_function(options.output_format)(path)).put_into(atoms)
            if options.output_format == 'json':
                return _make_label(options, json.loads(content)).put_into(atoms)
            (given,) = ase.io.iread(path, index=-1, format=options.output_format)
            return take_label(atoms, given)
        except OodalError as error:
            raise OodalError(f'{options.output_file}: {error}') from error
        except Exception as error:  # what readers of ASE and of users raise of what they cannot read
            tail = content.decode('utf-8', errors='replace').strip()[-200:]
            raise OodalError(
                f'{options.output_file} cannot be read as {options.output_format} ({type(error).__name__}: {error}); '
                f'it ends with: {tail}'
            ) from error


def _make_label(options: ExecutableOptions, values: Any) -> Label:
    """Make a label of what a program, or a function of its user, says."""
    if not isinstance(values, Mapping):
        raise OodalError(f'it is {type(values).__name__}, and an object with energy and forces is needed')
    if missing := [name for name in ('energy', 'forces') if values.get(name) is None]:
        raise OodalError(f'it has no {missing[0]}; there is {", ".join(sorted(map(str, values))) or "nothing"}')
    energy, length = getattr(units, options.energy_unit), getattr(units, options.length_unit)
    stress = values.get('stress')
    return Label(
        float(values['energy']) * energy,
        np.asarray(values['forces'], dtype=np.float64) * (energy / length),
        None if stress is None else np.asarray(stress, dtype=np.float64).reshape(-1) * (energy / length**3),
    )


@cache
def _compile(text: str) -> Template:
    """Compile a template that can do nothing but be filled in; a value that is missing is an error.

    :raises OodalError: if it is no template.
    """
    from jinja2 import StrictUndefined, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    try:
        return environment.from_string(text)
    except TemplateSyntaxError as error:
        raise OodalError(f'template, line {error.lineno}: {error.message}') from error


def _has_format(name: str, ability: str) -> bool:
    return name in ioformats and bool(getattr(ioformats[name], ability))


def _find_function(name: str) -> Any:
    """Return the function of a user.

    :raises OodalError: if it cannot be imported.
    """
    module, _, attribute = name.partition(':')
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise OodalError(
            f'output_format = {name!r} cannot be imported ({error}); the module must be on the path of the daemon, too'
        ) from error
