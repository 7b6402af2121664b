"""Labels by Quantum ESPRESSO, through aiida-quantumespresso."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiida import orm
from aiida.common import exceptions
from aiida.plugins import GroupFactory
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
from .workflow import WorkflowLabelWorkChain

#: Keywords of pw.x that change how a calculation runs and what it writes, not the values that it converges to.
#: Source: INPUT_PW of Quantum ESPRESSO 6.7 and 7.4.
_HARMLESS = {
    'CONTROL': {
        'calculation',
        'disk_io',
        'etot_conv_thr',
        'forc_conv_thr',
        'iprint',
        'lkpoint_dir',
        'max_seconds',
        'outdir',
        'prefix',
        'pseudo_dir',
        'restart_mode',
        'title',
        'tprnfor',
        'trism',
        'tstress',
        'verbosity',
        'wf_collect',
        'wfcdir',
    },
    'ELECTRONS': {
        'adaptive_thr',
        'conv_thr_init',
        'conv_thr_multi',
        'diago_cg_maxiter',
        'diago_david_ndim',
        'diago_full_acc',
        'diago_gs_nblock',
        'diago_ppcg_maxiter',
        'diago_rmm_conv',
        'diago_rmm_ndim',
        'diago_thr_init',
        'diagonalization',
        'electron_maxstep',
        'exx_maxstep',
        'mixing_beta',
        'mixing_mode',
        'mixing_ndim',
        'scf_must_converge',
        'startingpot',
        'startingwfc',
    },
}
#: What the input of an SCF consists of.
_NAMELISTS = ('CONTROL', 'SYSTEM', 'ELECTRONS')
#: Units that aiida-quantumespresso writes beside its values.
_UNITS = {'energy_units': 'eV', 'forces_units': 'ev / angstrom', 'stress_units': 'GPascal'}


@dataclass(frozen=True, kw_only=True)
class PwSettings(GammaSettings):
    """Settings of the labeller, beside the inputs of ``PwBaseWorkChain``."""

    conv_thr_per_atom: float = option(
        ..., 'Estimated error at which the SCF counts as converged, Ry per atom; ELECTRONS.conv_thr wins over it.', gt=0
    )


class PwAdapter(Adapter):
    """``PwBaseWorkChain`` of aiida-quantumespresso: one SCF with forces and stress."""

    WORKFLOW = 'oodal.label_pw_scf'
    INSTALL = "'aiida-oodal[qe]'"
    GIVEN = ('pw.structure', 'kpoints', 'pw.parent_folder')
    OUTPUTS = ('output_parameters', 'output_trajectory')
    PROTOCOL = 'label_pw'

    def fill(
        self, code: orm.AbstractCode, values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the inputs of a protocol of aiida-quantumespresso, with cutoffs for all elements.

        :param values: ``elements``; ``protocol``, ``workflow`` (overrides of ``PwBaseWorkChain``) and ``settings``.
        """
        require_code(code, 'quantumespresso.pw')
        workflow: Any = load_workflow(self)
        try:
            known = workflow.get_protocol_inputs(values['protocol'])
            inputs = workflow.get_protocol_inputs(values['protocol'], values['workflow'])
        except ValueError as error:
            raise OodalError(f'protocol of aiida-quantumespresso: {error}') from error
        given = values['workflow']
        require_known(given, [*known, 'max_iterations'], 'workflow')
        require_known(given.get('pw', {}), (*known['pw'], 'settings', 'parallelization'), 'workflow.pw')
        require_known(given.get('pw', {}).get('parameters', {}), _NAMELISTS, 'workflow.pw.parameters')
        parameters = inputs['pw']['parameters']
        pseudos, cutoffs = _find_pseudos(inputs['pseudo_family'], require_elements(values), parameters['SYSTEM'])
        parameters['SYSTEM'] |= cutoffs
        names = [name for name in ('settings', 'parallelization') if name in inputs['pw']]
        filled = {
            'pw': {
                'code': code,
                'pseudos': pseudos,
                'parameters': orm.Dict(parameters),
                'metadata': {'options': _fill_options(workflow, inputs, code, options)},
                **{name: orm.Dict(inputs['pw'][name]) for name in names},
            },
            'kpoints_distance': orm.Float(inputs['kpoints_distance']),
            'kpoints_force_parity': orm.Bool(inputs['kpoints_force_parity']),
            'max_iterations': orm.Int(inputs['max_iterations']),
            'clean_workdir': orm.Bool(inputs['clean_workdir']),
        }
        return filled, {'conv_thr_per_atom': inputs['meta_parameters']['conv_thr_per_atom'], **values['settings']}

    def get_level(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input of pw.x, the MD5 of every pseudopotential and how k-points are chosen."""
        options = PwSettings.load(settings)
        parameters = {
            namelist: {key: value for key, value in values.items() if key not in _HARMLESS.get(namelist, ())}
            for namelist, values in inputs['pw']['parameters'].get_dict().items()
        }
        parameters.setdefault('ELECTRONS', {}).setdefault('conv_thr', f'{options.conv_thr_per_atom!r} per atom')
        density: dict[str, Any] = {}
        if options.gamma_only != 'all':
            parity = inputs.get('kpoints_force_parity')
            density = {
                'kpoints_distance': inputs['kpoints_distance'].value,
                'kpoints_force_parity': bool(parity is not None and parity.value),
            }
        files = {
            name: inputs['pw'][name].base.repository.hash()
            for name in ('vdw_table', 'hubbard_file')
            if name in inputs['pw']
        }
        return {
            'parameters': {namelist: values for namelist, values in parameters.items() if values},
            'pseudos': {kind: node.md5 for kind, node in inputs['pw']['pseudos'].items()},
            'gamma_only': options.gamma_only,
            **density,
            **files,
        }

    def describe_level(self, inputs: Mapping[str, Any]) -> str:
        """Return cutoff and pseudopotentials."""
        cutoff = inputs['pw']['parameters'].get_dict().get('SYSTEM', {}).get('ecutwfc')
        files = ', '.join(node.filename for _, node in sorted(inputs['pw']['pseudos'].items()))
        return f'pw.x {cutoff} Ry, {files}'

    def make_inputs(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], structure: orm.StructureData, *, is_cluster: bool
    ) -> dict[str, Any]:
        """Return the inputs with the structure, its pseudopotentials and its k-points."""
        options = PwSettings.load(settings)
        require_cell(structure)
        symbols = {kind.symbol for kind in structure.kinds}
        parameters = _keep_kinds(inputs['pw']['parameters'].get_dict(), symbols, set(inputs['pw']['pseudos']))
        # Whoever asks for labels wants these, whatever a file of parameters says.
        wanted = {'calculation': 'scf', 'tprnfor': True, 'tstress': True}
        parameters = merge(parameters, {'CONTROL': wanted})
        electrons = parameters.setdefault('ELECTRONS', {})
        electrons.setdefault('conv_thr', options.conv_thr_per_atom * len(structure.sites))
        pw = {
            **inputs['pw'],
            'structure': structure,
            'parameters': orm.Dict(parameters),
            'pseudos': {symbol: inputs['pw']['pseudos'][symbol] for symbol in sorted(symbols)},
        }
        made = {**inputs, 'pw': pw}
        if options.has_gamma_only(is_cluster=is_cluster):
            made.pop('kpoints_distance', None)
            made['kpoints'] = make_gamma_point()
            before = pw['settings'].get_dict() if 'settings' in pw else {}
            pw['settings'] = orm.Dict({**before, 'gamma_only': True})
        return made

    def read(self, outputs: Mapping[str, orm.Node]) -> LabelValues:
        """Read what pw.x wrote to its XML."""
        parameters: dict[str, Any] = outputs['output_parameters'].get_dict()
        trajectory: Any = outputs['output_trajectory']
        for name, unit in _UNITS.items():
            if parameters.get(name) != unit:
                raise OodalError(f'{name} is {parameters.get(name)!r} and should be {unit!r}: is this an SCF by pw.x?')
        if not parameters.get('convergence_info', {}).get('scf_conv', {}).get('convergence_achieved'):
            raise OodalError('the SCF did not converge, as pw.x itself says in its XML')
        names = set(trajectory.get_arraynames())
        if missing := {'forces', 'energy', 'atomic_species_name'} - names:
            raise OodalError(f'the output of pw.x has no {sorted(missing)[0]}')
        # pw.x counts what pushes outwards as positive, ASE what pulls inwards.
        stress = -to_voigt(trajectory.get_array('stress')[-1]) * GPa if 'stress' in names else None
        return LabelValues(
            symbols=[str(name) for name in trajectory.get_array('atomic_species_name')],
            # pw.x reports E - TS, which is what its forces are the derivative of.
            energy=float(trajectory.get_array('energy')[-1]),
            forces=np.asarray(trajectory.get_array('forces')[-1], dtype=np.float64),
            stress=stress,
        )

    def check(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], symbols: set[str] | None = None
    ) -> str | None:
        """Refuse calculations other than an SCF, wrong settings, and elements without a pseudopotential."""
        if problem := PwSettings.check(settings):
            return problem
        parameters = inputs['pw']['parameters'].get_dict()
        task = parameters.get('CONTROL', {}).get('calculation', 'scf')
        if task != 'scf':
            return f"CONTROL.calculation = {task!r}: a label needs 'scf', because the others move the atoms"
        if not parameters.get('ELECTRONS', {}).get('scf_must_converge', True):
            return 'ELECTRONS.scf_must_converge = False: what did not converge is no label'
        if PwSettings.load(settings).gamma_only != 'all' and 'kpoints_distance' not in inputs:
            return "give `kpoints_distance`, or settings = {'gamma_only': 'all'}"
        return check_elements(symbols, inputs['pw']['pseudos'], 'pseudopotential')


class PwLabelWorkChain(WorkflowLabelWorkChain):
    """Label by Quantum ESPRESSO's pw.x: an SCF for each structure, clusters at the Gamma point."""

    NAME = 'oodal.label.pw'
    ADAPTER = 'aiida_oodal.workchains.label.pw:PwAdapter'


def _find_pseudos(
    family: str, elements: list[str], system: Mapping[str, Any]
) -> tuple[dict[str, orm.Node], dict[str, float]]:
    """Return the pseudopotential of every element, and the cutoffs [Ry] where the user gave none.

    :raises OodalError: if there is no such family, it lacks an element, or it recommends no cutoffs.
    """
    query = orm.QueryBuilder().append(GroupFactory('pseudo.family'), filters={'label': family})
    try:
        group: Any = query.one()[0]
    except (exceptions.NotExistent, exceptions.MultipleObjectsError) as error:
        raise OodalError(
            f'there is no one pseudopotential family {family!r}: `aiida-pseudo list` shows those there are, '
            '`aiida-pseudo install sssp` gets a published one, `aiida-pseudo install family FOLDER LABEL` makes one of '
            "files; name it as overrides={'label': {'workflow': {'pseudo_family': ...}}}"
        ) from error
    try:
        pseudos = {element: group.get_pseudo(element) for element in elements}
    except ValueError as error:
        raise OodalError(f'pseudopotential family {family!r}: {error}') from error
    if {'ecutwfc', 'ecutrho'} <= set(system):
        return pseudos, {}
    try:
        wfc, rho = group.get_recommended_cutoffs(elements=elements, unit='Ry')
    except (AttributeError, ValueError) as error:
        raise OodalError(
            f'pseudopotential family {family!r} recommends no cutoffs for {", ".join(elements)}: give `ecutwfc` and '
            "`ecutrho` as overrides={'label': {'workflow': {'pw': {'parameters': {'SYSTEM': {...}}}}}}"
        ) from error
    return pseudos, {'ecutwfc': wfc, 'ecutrho': rho}


def _fill_options(
    workflow: Any, inputs: Mapping[str, Any], code: orm.AbstractCode, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of the job: those of the protocol, and those of the computer and the user, which win."""
    filled = merge(inputs['pw']['metadata']['options'], options)
    filled.setdefault('environment_variables', {'OMP_NUM_THREADS': '1'})
    return guard(workflow.set_default_resources(filled, code.computer.scheduler_type), code.computer)


def _keep_kinds(parameters: Mapping[str, Any], present: set[str], known: set[str]) -> dict[str, Any]:
    """Return parameters without the values of elements that a structure lacks, as in ``starting_magnetization``.

    :param known: elements; a mapping of these is a value for each element.
    """
    kept: dict[str, Any] = {}
    for namelist, values in parameters.items():
        kept[namelist] = {}
        for key, value in values.items():
            by_element = isinstance(value, Mapping) and set(value) <= known
            of_structure = {name: item for name, item in value.items() if name in present} if by_element else value
            if not by_element or of_structure:
                kept[namelist][key] = of_structure
    return kept
