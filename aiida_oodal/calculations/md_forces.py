"""Where the forces of an MD run come from (potential, ensemble, pair lines), and the files that each of them needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiida import orm
from aiida.engine import CalcJobProcessSpec
from ase import Atoms

from aiida_oodal.calculations.codes.lammps_build import NATIVE_STYLE
from aiida_oodal.calculations.codes.lammps_code import check_pair_style, is_engine
from aiida_oodal.data import get_structures
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.pair_lines import check_arguments, check_lines, extend_lines, pair_styles, sets_masses
from aiida_oodal.engine.md.settings import Forces, MdSettings, check_structure
from aiida_oodal.engine.md.start.types import assign_types

from .learned import LEARNED, LearnedFiles, define_learned, describe_learned

#: Ports that say where forces come from; a run has one of them.
SOURCES = (*LEARNED, 'pair')


@dataclass(frozen=True)
class ForceSource(LearnedFiles):
    """Where forces come from, with files and description for the job; ``job`` is empty for pair lines.

    :ivar forces: ``native``, ``embedded`` or ``lines``, see the template of the LAMMPS script.
    :ivar lines: pair style commands of ``forces='lines'``.
    :ivar arguments: words for the command line of LAMMPS.
    """

    forces: Forces = 'embedded'
    lines: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def job_for(self, types: Sequence[str]) -> dict[str, Any]:
        """Return what the engine reads about the potential, for a run with these types (the element of each)."""
        return {**self.job, 'elements': list(types)} if self.job else {}


def define_sources(spec: CalcJobProcessSpec) -> None:
    """Define the ports of :data:`SOURCES`."""
    define_learned(
        spec,
        text='What gives the forces of MD. A potential is evaluated by `pair_style pace/extrapolation` if `code` is '
        'LAMMPS with ML-PACE, and in Python if `code` is the engine; an ensemble needs the engine.',
    )
    spec.input_namespace(
        'pair',
        required=False,
        help='Any other pair style of LAMMPS. `code` must be LAMMPS itself, and the run computes no gamma.',
    )
    spec.input(
        'pair.lines',
        valid_type=orm.List,
        required=False,
        serializer=orm.to_aiida_type,
        help='LAMMPS commands, `pair_style ...` and `pair_coeff ...`, one per entry.',
    )
    spec.input(
        'pair.elements',
        valid_type=orm.List,
        required=False,
        serializer=orm.to_aiida_type,
        help='Element of each LAMMPS type, in the order of the `pair_coeff` lines.',
    )
    spec.input(
        'pair.arguments',
        valid_type=orm.List,
        required=False,
        serializer=orm.to_aiida_type,
        help='Arguments for the command line of LAMMPS, one per entry, such as those for GPUs: `-k`, `on`, `g`, `1`, '
        '`-sf`, `kk`.',
    )
    spec.input_namespace(
        'pair.files',
        valid_type=orm.SinglefileData,
        dynamic=True,
        required=False,
        help='Files that the lines read, by any key. In the job they have their own file names.',
    )


def get_source(inputs: Mapping[str, Any]) -> ForceSource:
    """Return where the forces of a run come from.

    :param inputs: the inputs of the calculation, namespaces nested.
    """
    if pair := inputs.get('pair'):
        return ForceSource(
            pair['elements'].get_list(),
            None,
            {},
            [(file.uuid, file.filename, file.filename) for file in pair.get('files', {}).values()],
            forces='lines',
            lines=pair['lines'].get_list(),
            arguments=pair['arguments'].get_list() if 'arguments' in pair else [],
        )
    learned = describe_learned(inputs)
    native = learned.reference is None and not is_engine(inputs['code'])
    return ForceSource(**vars(learned), forces='native' if native else 'embedded')


def validate_source(inputs: Mapping[str, Any], ports: Mapping[str, Any]) -> str | None:
    """Refuse at submission what cannot run; ports that a caller excluded are filled in later.

    :param ports: the ports of this level.
    """
    given = [name for name in SOURCES if inputs.get(name)]
    if len(given) > 1:
        return f'forces come from {" and ".join(given)}; give one of them'
    if not given:
        return f'nothing gives forces; give one of {", ".join(SOURCES)}' if set(SOURCES) <= set(ports) else None
    if given == ['pair'] and (missing := {'lines', 'elements'} - set(inputs['pair'])):
        return f'pair.{min(missing)} is missing'
    if 'code' not in inputs:
        return None
    try:
        source = get_source(inputs)
        _check_code(inputs['code'], source)
        if {'structure', 'settings'} <= set(inputs):
            settings, structure = MdSettings.load(inputs['settings'].get_dict()), get_structures(inputs['structure'])[0]
            check_structure(settings, structure, source.elements, source.cutoff, forces=source.forces)
            _check_masses(structure, source)
    except OodalError as error:
        return str(error)
    return None


def _check_masses(structure: Atoms, source: ForceSource) -> None:
    """Refuse masses that pair lines cannot take.

    :raises OodalError: saying what to change.
    """
    if source.forces != 'lines':
        return
    if structure.has('masses') and sets_masses(source.lines):
        raise OodalError(
            'the structure has masses of its own and the pair lines set masses, too: remove one of the two'
        )
    extend_lines(source.lines, source.elements, assign_types(structure, source.elements).elements)


def _check_code(code: orm.AbstractCode, source: ForceSource) -> None:
    """Refuse a code that cannot give these forces.

    :raises OodalError: saying which code can.
    """
    if source.reference is not None and not is_engine(code):
        raise OodalError('an ensemble needs the engine as code (aiida_oodal.calculations.codes.get_engine_code)')
    styles = [NATIVE_STYLE] if source.forces == 'native' else []
    if source.forces == 'lines':
        check_lines(source.lines, source.elements, [name for *_, name in source.copies])
        check_arguments(source.arguments)
        if is_engine(code):
            raise OodalError('pair lines need a code that is LAMMPS itself (an InstalledCode of `lmp`), not the engine')
        styles = pair_styles(source.lines)
    for style in styles:
        if obstacle := check_pair_style(code, style):
            raise OodalError(obstacle)
