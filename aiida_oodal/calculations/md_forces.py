"""Where the forces of an MD run come from, and what that way puts into the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import CalcJobProcessSpec
from ase.data import chemical_symbols

from aiida_oodal.data import AcePotentialData, MaceModelData, OodReferenceData, get_structures
from aiida_oodal.data.arrays import read_arrays
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.build import NATIVE_STYLE
from aiida_oodal.engine.md.ensemble_settings import EnsembleSettings
from aiida_oodal.engine.md.pair_lines import check_arguments, check_lines, pair_styles
from aiida_oodal.engine.md.settings import Forces, MdSettings, check_structure

from .ensemble_ports import define_ensemble
from .lammps_code import check_pair_style, is_engine

#: Ports that say where forces come from; a run has one of them.
SOURCES = ('potential', 'ensemble', 'pair')
#: The fitted reference of an ensemble, in the job folder.
REFERENCE_FILE = 'reference.npz'


@dataclass(frozen=True)
class ForceSource:
    """One way to forces.

    :ivar forces: the name of the way in the LAMMPS template.
    :ivar elements: element of each LAMMPS type.
    :ivar cutoff: range [angstrom]; None where only the pair style knows it.
    :ivar lines: pair style commands of ``forces='lines'``.
    :ivar arguments: words for the command line of LAMMPS.
    :ivar job: what the engine reads about the potential.
    :ivar copies: ``(node uuid, name in the node, name in the job)``.
    :ivar reference: what gamma of an ensemble is measured against.
    """

    forces: Forces
    elements: list[str]
    cutoff: float | None = None
    lines: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=dict)
    copies: list[tuple[str, str, str]] = field(default_factory=list)
    reference: OodReferenceData | None = None

    def write_files(self, folder: Path) -> list[str]:
        """Write what is not a file of a node already, and return the names."""
        if self.reference is None:
            return []
        np.savez(folder / REFERENCE_FILE, allow_pickle=False, **read_arrays(self.reference))
        return [REFERENCE_FILE]


def define_sources(spec: CalcJobProcessSpec) -> None:
    """Define the ports of :data:`SOURCES`."""
    spec.input(
        'potential',
        valid_type=AcePotentialData,
        required=False,
        help='An ACE potential, which grades itself: by `pair_style pace/extrapolation` if `code` is LAMMPS with '
        'ML-PACE, by pyace if it is the engine.',
    )
    define_ensemble(spec, 'An ensemble of MACE models, which grades itself by its disagreement; `code` is the engine.')
    spec.input(
        'ensemble.settings',
        valid_type=orm.Dict,
        required=False,
        serializer=orm.to_aiida_type,
        validator=_validate_ensemble_settings,
        help='Fields of `aiida_oodal.engine.md.ensemble_settings.EnsembleSettings`: which model gives forces, ...',
    )
    spec.input_namespace(
        'pair',
        required=False,
        help='Any other pair style of LAMMPS; `code` is LAMMPS itself, and nothing watches the run.',
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
        help='Words for the command line of LAMMPS, as GPUs want them: `-k`, `on`, `g`, `1`, `-sf`, `kk`.',
    )
    spec.input_namespace(
        'pair.files',
        valid_type=orm.SinglefileData,
        dynamic=True,
        required=False,
        help='Files that the lines name; they come into the job under their own names, whatever the keys here.',
    )


def get_source(inputs: Mapping[str, Any]) -> ForceSource:
    """Return where the forces of a run come from.

    :param inputs: the inputs of the calculation, namespaces nested.
    """
    if pair := inputs.get('pair'):
        return ForceSource(
            'lines',
            pair['elements'].get_list(),
            lines=pair['lines'].get_list(),
            arguments=pair['arguments'].get_list() if 'arguments' in pair else [],
            copies=[(file.uuid, file.filename, file.filename) for file in pair.get('files', {}).values()],
        )
    if ensemble := inputs.get('ensemble'):
        return _ensemble_source(ensemble)
    potential = inputs['potential']
    names = (AcePotentialData.BASIS, AcePotentialData.ACTIVE_SET)
    return ForceSource(
        'embedded' if is_engine(inputs['code']) else 'native',
        potential.elements,
        cutoff=potential.cutoff,
        job={'kind': 'ace', 'yaml': names[0], 'active_set': names[1], 'elements': potential.elements},
        copies=[(potential.uuid, name, name) for name in names],
    )


def _ensemble_source(ensemble: Mapping[str, Any]) -> ForceSource:
    models, reference = ensemble['models'], ensemble['reference']
    files = {label: f'{label}.model' for label in models}
    elements = [chemical_symbols[number] for number in reference.base.attributes.get('elements')]
    settings = EnsembleSettings.load(ensemble['settings'].get_dict() if 'settings' in ensemble else {})
    labels = reference.base.attributes.get('model_labels')
    if set(models) != set(labels):
        raise OodalError(
            f'ensemble.models are {", ".join(models)}, but the reference was made of {", ".join(labels)}: give the '
            'models the labels that they had there'
        )
    if settings.forces not in (*models, 'mean'):
        raise OodalError(f'ensemble settings: forces = {settings.forces!r}: there are {", ".join((*models, "mean"))}')
    return ForceSource(
        'embedded',
        elements,
        job={
            'kind': 'mace',
            'models': files,
            'reference': REFERENCE_FILE,
            'elements': elements,
            'settings': settings.model_dump(mode='json'),
        },
        copies=[(models[label].uuid, MaceModelData.MODEL, name) for label, name in files.items()],
        reference=reference,
    )


def _validate_ensemble_settings(node: orm.Dict, _: Any) -> str | None:
    return EnsembleSettings.check(node.get_dict())


def validate_source(inputs: Mapping[str, Any], ports: Mapping[str, Any]) -> str | None:
    """Refuse at submission what cannot run; ports that a caller excluded are filled in later.

    :param ports: the ports of this level.
    """
    given = [name for name in SOURCES if inputs.get(name)]
    if len(given) > 1:
        return f'forces come from {" and ".join(given)}; give one of them'
    if not given:
        return f'nothing gives forces; give one of {", ".join(SOURCES)}' if set(SOURCES) <= set(ports) else None
    for name, needed in (('pair', {'lines', 'elements'}), ('ensemble', {'models', 'reference'})):
        if given == [name] and (missing := needed - set(inputs[name])):
            return f'{name}.{min(missing)} is missing'
    if 'code' not in inputs:
        return None
    try:
        source = get_source(inputs)
        _check_code(inputs['code'], source)
        if {'structure', 'settings'} <= set(inputs):
            settings, structure = MdSettings.load(inputs['settings'].get_dict()), get_structures(inputs['structure'])[0]
            check_structure(settings, structure, source.elements, source.cutoff, forces=source.forces)
    except OodalError as error:
        return str(error)
    return None


def _check_code(code: orm.AbstractCode, source: ForceSource) -> None:
    """Refuse a code that cannot give these forces.

    :raises OodalError: saying which code can.
    """
    if source.reference is not None and not is_engine(code):
        raise OodalError('an ensemble needs the engine as code (aiida_oodal.calculations.engine_code.get_engine_code)')
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
