"""Labels by VASP, through aiida-vasp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.exceptions import NotExistent
from aiida.plugins import DataFactory
from ase.units import GPa

from aiida_oodal.engine.errors import OodalError, require_known
from aiida_oodal.engine.options import option
from aiida_oodal.workchains.protocols import merge

from .adapter import (
    Adapter,
    GammaSettings,
    check_elements,
    guard,
    load_workflow,
    make_gamma_point,
    require_cell,
    require_code,
    require_elements,
)
from .values import LabelValues, to_voigt

#: What the adapter says itself: one SCF with forces and stress.
_WANTED = {'nsw': 0, 'ibrion': -1, 'isif': 2}
#: Tags of INCAR that change how a calculation runs and what it writes, not the values that it converges to.
#: Source: the VASP Wiki, https://www.vasp.at/wiki/Category:INCAR_tag.
_HARMLESS = {
    'algo', 'amin', 'amix', 'amix_mag', 'bmix', 'bmix_mag', 'ibrion', 'icharg', 'isif', 'istart', 'kpar', 'lcharg',
    'lorbit', 'lplane', 'lscalapack', 'lvhar', 'lvtot', 'lwave', 'maxmix', 'ncore', 'nedos', 'nelm', 'nelmdl',
    'nelmin', 'npar', 'nsim', 'nsw', 'nwrite', 'system', 'time',
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VaspSettings(GammaSettings):
    """Settings of the labeller, beside the inputs of ``VaspWorkChain``."""

    ediff_per_atom: float = option(
        ..., 'Change of the energy at which the SCF counts as converged, eV per atom; incar.ediff wins over it.', gt=0
    )


class VaspAdapter(Adapter):
    """``VaspWorkChain``: one SCF; energy, forces and stress out of vasprun.xml."""

    WORKFLOW = 'vasp.v2.vasp'
    INSTALL = "'aiida-oodal[vasp]'"
    GIVEN = ('structure', 'kpoints')
    OUTPUTS = ('misc', 'trajectory')
    PROTOCOL = 'label_vasp'

    def fill(
        self, code: orm.AbstractCode, values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the inputs of a protocol of aiida-vasp, with a POTCAR for every element.

        :param values: ``elements``; ``protocol``, ``workflow`` (overrides of ``VaspWorkChain``) and ``settings``.
        """
        require_code(code, 'vasp.vasp')
        workflow: Any = load_workflow(self)
        known = workflow.get_protocol_inputs(values['protocol'])
        optional = ('settings', 'magmom_mapping', 'ldau_mapping')
        require_known(values['workflow'], [*known, *optional], 'workflow')
        inputs = workflow.get_protocol_inputs(values['protocol'], values['workflow'])
        mapping = {element: inputs['potential_mapping'].get(element, element) for element in require_elements(values)}
        job = merge(inputs['calc']['metadata']['options'], options)
        parser = {'energy_type': ['energy_free', 'energy_extrapolated'], 'include_node': ['trajectory']}
        filled = {
            'code': code,
            'parameters': orm.Dict(inputs['parameters']),
            'potential_family': orm.Str(inputs['potential_family']),
            'potential_mapping': orm.Dict(mapping),
            'kpoints_spacing': orm.Float(inputs['kpoints_spacing']),
            'settings': orm.Dict(merge(inputs.get('settings') or {}, {'parser_settings': parser})),
            'calc': {'metadata': {'options': guard(job, code.computer)}},
            'clean_workdir': orm.Bool(inputs['clean_workdir']),
            'max_iterations': orm.Int(inputs['max_iterations']),
            **{
                name: orm.Dict(inputs[name])
                for name in ('magmom_mapping', 'ldau_mapping')
                if any((inputs.get(name) or {}).values())
            },
        }
        _find_potcars(filled)
        return filled, {'ediff_per_atom': inputs['meta_parameters']['ediff_per_atom'], **values['settings']}

    def get_level(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return INCAR, the SHA-512 of every POTCAR and how k-points are chosen."""
        options = VaspSettings.load(settings)
        incar = {key: value for key, value in inputs['parameters'].get_dict()['incar'].items() if key not in _HARMLESS}
        incar.setdefault('ediff', f'{options.ediff_per_atom!r} per atom')
        potcars = _find_potcars(inputs)
        mappings = {name: inputs[name].get_dict() for name in ('magmom_mapping', 'ldau_mapping') if name in inputs}
        if 'magmom_mapping' in mappings:
            moments = mappings['magmom_mapping']
            mappings['magmom_mapping'] = {key: moments[key] for key in (*potcars, 'default') if key in moments}
        return {
            'incar': incar,
            'potcars': {element: potcar.sha512 for element, potcar in potcars.items()},
            'gamma_only': options.gamma_only,
            **mappings,
            **({} if options.gamma_only == 'all' else {'kpoints_spacing': inputs['kpoints_spacing'].value}),
        }

    def make_inputs(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], structure: orm.StructureData, *, is_cluster: bool
    ) -> dict[str, Any]:
        """Return the inputs with the structure and its k-points."""
        options = VaspSettings.load(settings)
        require_cell(structure)
        symbols = {kind.symbol for kind in structure.kinds}
        parameters = merge(inputs['parameters'].get_dict(), {'incar': _WANTED})
        parameters['incar'].setdefault('ediff', options.ediff_per_atom * len(structure.sites))
        mapping = inputs['potential_mapping'].get_dict()
        made = {
            **inputs,
            'structure': structure,
            'parameters': orm.Dict(parameters),
            'potential_mapping': orm.Dict({symbol: mapping[symbol] for symbol in sorted(symbols)}),
        }
        if options.has_gamma_only(is_cluster=is_cluster):
            made.pop('kpoints_spacing')
            made['kpoints'] = make_gamma_point()
        return made

    def read(self, outputs: Mapping[str, orm.Node]) -> LabelValues:
        """Read what VASP wrote to vasprun.xml."""
        misc: dict[str, Any] = outputs['misc'].get_dict()
        trajectory: Any = outputs['trajectory']
        if misc.get('run_status', {}).get('electronic_converged') is not True:
            raise OodalError('the SCF did not converge, as VASP itself says in its output')
        names = set(trajectory.get_arraynames())
        if missing := {'forces', 'stress', 'positions', 'cells', 'energy_free'} - names:
            raise OodalError(f'the output of VASP has no {sorted(missing)[0]}; settings of its parser must ask for it')
        return LabelValues(
            symbols=list(trajectory.base.attributes.get('symbols')),
            # TOTEN and not energy(sigma->0): the forces are the derivative of TOTEN
            energy=float(trajectory.get_array('energy_free')[-1]),
            forces=np.asarray(trajectory.get_array('forces')[-1], dtype=np.float64),
            # kbar; VASP counts what pushes outwards as positive, ASE what pulls inwards
            stress=-to_voigt(trajectory.get_array('stress')[-1]) * 0.1 * GPa,
            positions=trajectory.get_array('positions')[-1] @ trajectory.get_array('cells')[-1],
        )

    def check(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], symbols: set[str] | None = None
    ) -> str | None:
        """Refuse wrong settings and elements without a POTCAR."""
        if problem := VaspSettings.check(settings):
            return problem
        try:
            return check_elements(symbols, _find_potcars(inputs), 'POTCAR')
        except OodalError as error:
            return str(error)


def _find_potcars(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the POTCAR of every element.

    :raises OodalError: if the family has none for one of them.
    """
    family, mapping = inputs['potential_family'].value, inputs['potential_mapping'].get_dict()
    try:
        found: dict[str, Any] = DataFactory('vasp.potcar').get_potcars_dict(list(mapping), family, mapping)
    except (NotExistent, ValueError) as error:
        raise OodalError(
            f'POTCAR family {family!r} has not all of {", ".join(mapping.values())} ({error}): `aiida-vasp potcar '
            'listfamilies` shows the families, `aiida-vasp potcar uploadfamily` makes one of your files'
        ) from error
    return found
