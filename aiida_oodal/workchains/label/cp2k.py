"""Labels by CP2K, through aiida-cp2k."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from aiida import orm
from aiida.common.hashing import make_hash
from ase.units import Bohr, GPa, Hartree
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError, require_known
from aiida_oodal.engine.options import Options, option
from aiida_oodal.workchains.protocols import merge

from .adapter import Adapter, check_elements, guard, require_cell, require_code, require_elements
from .values import LabelValues, to_voigt

#: What the adapter says itself: energy, forces and stress of one structure, in the output.
_WANTED = {
    'GLOBAL': {'RUN_TYPE': 'ENERGY_FORCE', 'PRINT_LEVEL': 'MEDIUM'},
    'FORCE_EVAL': {
        'STRESS_TENSOR': 'ANALYTICAL',
        'PRINT': {'FORCES': {'_': 'ON', 'NDIGITS': 12}, 'STRESS_TENSOR': {'_': 'ON'}},
    },
}
#: Keywords and sections that change how a calculation runs and what it writes, not what it converges to.
#: Source: the input reference of CP2K 2023.1.
_HARMLESS = {
    (): {'GLOBAL'},
    ('FORCE_EVAL',): {'PRINT', 'STRESS_TENSOR'},
    ('FORCE_EVAL', 'DFT'): {'PRINT', 'WFN_RESTART_FILE_NAME'},
    ('FORCE_EVAL', 'DFT', 'SCF'): {
        'DIAGONALIZATION', 'EPS_DIIS', 'MAX_DIIS', 'MAX_SCF', 'MIXING', 'OT', 'OUTER_SCF', 'PRINT', 'SCF_GUESS',
    },
}  # fmt: skip
_NUMBER = r'\s+([-+]?\d+\.\d+(?:[Ee][-+]?\d+)?)'
_ATOM = re.compile(r'^\s*\d+\s+\d+\s+([A-Z][a-z]?)\s+\d+' + _NUMBER * 3, re.MULTILINE)
#: Tables of forces [Hartree/Bohr]: of CP2K until 2024, and since.
_FORCE = re.compile(
    r'^\s*\d+\s+\d+\s+[A-Z][a-z]?' + _NUMBER * 3 + r'\s*$|^\s*FORCES\|\s+\d+' + _NUMBER * 4, re.MULTILINE
)
_STRESS = re.compile(r'^\s*STRESS\|\s+[xyz]' + _NUMBER * 3, re.MULTILINE)
_STRESS_UNIT = re.compile(r'STRESS\| Analytical stress tensor \[(\w+)\]')
_STRESS_UNITS = {'GPa': GPa, 'bar': 1e-4 * GPa}


@dataclass(frozen=True, kw_only=True)
class Cp2kSettings(Options):
    """Settings of the labeller, beside the inputs of ``Cp2kBaseWorkChain``."""

    TITLE: ClassVar[str] = 'settings'

    kpoints_distance: float | None = option(
        None,
        'Distance of the k-points of structures that are no clusters, 1/angstrom. Without it all structures have the '
        'Gamma point only.',
        gt=0,
    )


class Cp2kAdapter(Adapter):
    """``Cp2kBaseWorkChain``: energy, forces and stress, read from what CP2K prints."""

    WORKFLOW = 'cp2k.base'
    INSTALL = "'aiida-oodal[cp2k]'"
    GIVEN = ('cp2k.structure', 'cp2k.kpoints')
    OUTPUTS = ('output_parameters', 'retrieved')
    PROTOCOL = 'label_cp2k'

    def fill(
        self, code: orm.AbstractCode, values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parameters of the protocol with a ``KIND`` for every element.

        :param values: ``elements``; ``basis_set`` and ``potential`` of each; ``workflow.parameters``; ``settings``.
        """
        require_code(code, 'cp2k')
        require_known(values['workflow'], ('parameters', 'max_iterations'), 'workflow')
        kinds = [
            {'_': element, 'BASIS_SET': values['basis_set'], 'POTENTIAL': values['potential']}
            for element in require_elements(values)
        ]
        parameters = merge({'FORCE_EVAL': {'SUBSYS': {'KIND': kinds}}}, values['workflow']['parameters'])
        job = {'environment_variables': {'OMP_NUM_THREADS': '1'}, 'resources': {'num_machines': 1}, **options}
        cp2k = {
            'code': code,
            'parameters': orm.Dict(parameters),
            'metadata': {'options': guard(job, code.computer)},
        }
        return {'cp2k': cp2k, 'max_iterations': orm.Int(values['workflow']['max_iterations'])}, values['settings']

    def get_level(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input of CP2K and the content of the files that come with it.

        Of basis sets and potentials that are only named, in files of CP2K's own, the name stands for the content.
        """
        cp2k = inputs['cp2k']
        files = {
            f'{name}.{key}': make_hash([node.base.attributes.all, node.base.repository.hash()])
            for name in ('file', 'basissets', 'pseudos', 'pseudos_upf')
            for key, node in cp2k.get(name, {}).items()
        }
        distance = Cp2kSettings.load(settings).kpoints_distance
        return {'parameters': _keep_values(cp2k['parameters'].get_dict()), 'kpoints_distance': distance, **files}

    def make_inputs(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], structure: orm.StructureData, *, is_cluster: bool
    ) -> dict[str, Any]:
        """Return the inputs with the structure, what is wanted of it and its k-points."""
        require_cell(structure)
        parameters = merge(inputs['cp2k']['parameters'].get_dict(), _WANTED)
        cp2k = {**inputs['cp2k'], 'structure': structure, 'parameters': orm.Dict(parameters)}
        distance = Cp2kSettings.load(settings).kpoints_distance
        if distance is not None and not is_cluster:
            cp2k['kpoints'] = orm.KpointsData()
            cp2k['kpoints'].set_cell_from_structure(structure)
            cp2k['kpoints'].set_kpoints_mesh_from_density(distance)
        return {**inputs, 'cp2k': cp2k}

    def read(self, outputs: Mapping[str, orm.Node]) -> LabelValues:
        """Read what CP2K printed; its total energy contains -TS where there is smearing, as the forces do."""
        parameters: dict[str, Any] = outputs['output_parameters'].get_dict()
        text: str = outputs['retrieved'].base.repository.get_object_content('aiida.out')
        if 'SCF run NOT converged' in text or 'SCF run converged in' not in text:
            # CP2K goes on after the warning, and aiida-cp2k calls it a success.
            raise OodalError('the SCF did not converge, as CP2K itself says in its output')
        if parameters.get('energy_units') != 'a.u.':
            raise OodalError(f'the energy is in {parameters.get("energy_units")!r}, not in a.u.: is this from CP2K?')
        atoms = _ATOM.findall(_cut(text, 'coordinates', r'MODULE QUICKSTEP: *ATOMIC COORDINATES', r'SCF PARAMETERS'))
        forces = _FORCE.findall(_cut(text, 'forces', r'ATOMIC FORCES IN \[|FORCES\| ATOMIC FORCES \[', r'\bSUM\b'))
        return LabelValues(
            symbols=[atom[0] for atom in atoms],
            energy=parameters['energy'] * Hartree,
            forces=np.array([[float(x) for x in row if x][:3] for row in forces]).reshape(-1, 3) * Hartree / Bohr,
            stress=_read_stress(text),
            positions=np.array([atom[1:] for atom in atoms], dtype=float).reshape(-1, 3),
        )

    def check(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], symbols: set[str] | None = None
    ) -> str | None:
        """Refuse settings that mean nothing, what need not converge, and elements without ``KIND``."""
        if problem := Cp2kSettings.check(settings):
            return problem
        force_eval = _upper(inputs['cp2k']['parameters'].get_dict()).get('FORCE_EVAL', {})
        ignored = force_eval.get('DFT', {}).get('SCF', {}).get('IGNORE_CONVERGENCE_FAILURE', False)
        if str(ignored).strip('.').upper() not in ('F', 'FALSE', 'NO', 'OFF'):
            return 'SCF/IGNORE_CONVERGENCE_FAILURE: what did not converge is no label'
        kinds = force_eval.get('SUBSYS', {}).get('KIND', [])
        known = {str(kind.get('_', '')) for kind in (kinds if isinstance(kinds, list) else [kinds])}
        return check_elements(symbols, known, 'KIND')


def _cut(text: str, what: str, begin: str, end: str) -> str:
    """Return the table between two patterns; case makes no difference.

    :raises OodalError: if it is not there.
    """
    match = re.search(f'(?:{begin})(.*?)(?:{end})', text, flags=re.DOTALL | re.IGNORECASE)
    if match is None:
        raise OodalError(f'the output of CP2K has no table of {what}, or it is not complete')
    return match[1]


def _read_stress(text: str) -> NDArray[np.float64] | None:
    """Return the stress; CP2K counts what pushes outwards as positive, ASE what pulls inwards."""
    unit = _STRESS_UNIT.search(text)
    if unit is None:
        return None
    if unit[1] not in _STRESS_UNITS:
        raise OodalError(f'CP2K gives the stress in {unit[1]}: choose one of {", ".join(_STRESS_UNITS)}')
    rows = np.array(_STRESS.findall(text, unit.end())[:3], dtype=float)
    return -to_voigt(rows) * _STRESS_UNITS[unit[1]]


def _upper(values: Any) -> Any:
    """Return nested values with their keys in upper case, as CP2K reads them."""
    if isinstance(values, Mapping):
        return {str(key).upper(): _upper(value) for key, value in values.items()}
    return [_upper(value) for value in values] if isinstance(values, list) else values


def _keep_values(parameters: Mapping[str, Any]) -> Any:
    """Return the parameters that decide what is computed."""

    def keep(values: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        return {
            key: keep(value, (*path, key)) if isinstance(value, Mapping) else value
            for key, value in values.items()
            if key not in _HARMLESS.get(path, ())
        }

    return keep(_upper(parameters), ())
