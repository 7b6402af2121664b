"""The calcfunctions before and after the job of a user's own program: write the input, read the label."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.calculations.explained import explained
from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.engine.label.executable import ExecutableOptions, read_output, render_input
from aiida_oodal.engine.labels import LEVEL, QUEUE_KEY


@calcfunction
@explained
def write_input(structure: orm.StructureData, settings: orm.Dict, key: orm.Str) -> orm.SinglefileData:
    """Return the input of a program for one structure.

    :param settings: fields of :class:`aiida_oodal.engine.label.executable.ExecutableOptions`.
    :param key: of the entry in the queue.
    """
    options = ExecutableOptions.load(settings.get_dict())
    (atoms,) = get_structures(structure)
    return orm.SinglefileData.from_string(render_input(options, atoms, key.value), filename=options.input_file)


@calcfunction
@explained
def read_label_file(
    structure: orm.StructureData, settings: orm.Dict, key: orm.Str, level: orm.Str, output: orm.SinglefileData
) -> StructureSetData:
    """Return a set of one structure with the label that a program wrote.

    :param settings: fields of :class:`aiida_oodal.engine.label.executable.ExecutableOptions`.
    :param key: of the entry in the queue.
    :param level: hash of the level of theory.
    """
    (atoms,) = get_structures(structure)
    labelled = read_output(ExecutableOptions.load(settings.get_dict()), atoms, output.get_content(mode='rb'))
    labelled.info |= {QUEUE_KEY: key.value, LEVEL: level.value}
    return StructureSetData([labelled])
