"""Any AiiDA workflow labels, if a page says how: one of one's own, CP2K, and VASP as it was recorded."""

import tarfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.engine import WorkChain, run_get_node
from ase.build import bulk
from machine import find_program, require

from aiida_oodal.data import ClusterData
from aiida_oodal.engine.carve.cluster import extract_cluster, take_whole
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.queue import find_entries
from aiida_oodal.workchains.label.adapter import Adapter, load_adapter, load_workflow
from aiida_oodal.workchains.label.single import change
from aiida_oodal.workchains.label.values import LabelValues
from aiida_oodal.workchains.label.workflow import WorkflowLabelWorkChain

VASP = Path(__file__).parents[2] / 'data' / 'vasp'


class SpringsWorkChain(WorkChain):
    """Springs between all atoms and the origin; too soft ones break."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('structure', valid_type=orm.StructureData)
        spec.input('springs', valid_type=orm.Dict)
        spec.outline(cls.pull)
        spec.output('found', valid_type=orm.Dict)
        spec.exit_code(300, 'ERROR_BROKEN', message='a spring broke')

    def pull(self):
        springs = self.inputs.springs.get_dict()
        if springs['patience'] < 2:
            return self.exit_codes.ERROR_BROKEN
        positions = self.inputs.structure.get_ase().positions
        stiffness = springs['stiffness']
        found = {
            'symbols': self.inputs.structure.get_ase().get_chemical_symbols(),
            'energy': stiffness * float(np.sum(positions**2)) / 2,
            'forces': (-stiffness * positions).tolist(),
        }
        self.out('found', orm.Dict(found).store())
        return None


class SpringsAdapter(Adapter):
    """All that has to be said of the workflow above."""

    WORKFLOW = 'test.springs'
    OUTPUTS = ('found',)

    def fill(self, code, values, options):
        return {'springs': orm.Dict(values['workflow'])}, values['settings']

    def get_level(self, inputs, settings):
        return {'stiffness': inputs['springs']['stiffness']}

    def make_inputs(self, inputs, settings, structure, *, is_cluster):
        kind = 'cut out' if is_cluster else 'whole'
        return {**inputs, 'structure': structure, 'metadata': {'label': kind}}

    def read(self, outputs):
        found = outputs['found'].get_dict()
        return LabelValues(found['symbols'], found['energy'], np.array(found['forces']))


@pytest.fixture
def springs(entry_points, engine_code, localhost):
    """Return a function that fills the builder of the labeller for one structure."""
    entry_points.add(SpringsWorkChain, 'aiida.workflows:test.springs')
    entry_points.add(SpringsAdapter, 'aiida_oodal.adapters:springs')

    def fill(atoms, **workflow):
        builder = WorkflowLabelWorkChain.get_builder_from_protocol(
            code=engine_code,
            computer=localhost,
            overrides={
                'adapter': 'springs',
                'workflow': {'stiffness': 0.5, 'patience': 2, **workflow},
                'retries': [{'springs': {'patience': 1}}, {'springs': {'patience': 2}}],
            },
        )
        builder.clusters = {'c0': orm.StructureData(ase=atoms)}
        return builder

    return fill


def make_atoms(seed):
    atoms = bulk('Al', cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def singles_of(node):
    return [child for child in node.called if child.process_label == 'LabelSingleWorkChain']


def test_a_workflow_of_ones_own_labels(springs):
    atoms = make_atoms(1)
    outputs, node = run_get_node(springs(atoms))
    assert node.is_finished_ok, node.exit_message
    (label,) = outputs['labels']
    np.testing.assert_allclose(label.arrays['REF_forces'], -0.5 * atoms.positions, atol=1e-12)
    (entry,) = find_entries(campaign=node.uuid)
    assert entry.labeller == 'oodal.label.workflow'
    assert label.info['queue_key'] == entry.key
    assert label.info['level_of_theory'] == entry.level
    assert WorkflowLabelWorkChain.get_level(node.inputs).settings == {'adapter': 'springs', 'stiffness': 0.5}
    # the label has a history: it was made of what the workflow found
    made_of = outputs['labels'].creator.inputs
    assert made_of.found.uuid == singles_of(node)[0].called[0].outputs.found.uuid


def test_only_what_was_cut_out_is_given_as_a_cluster(springs):
    builder, snapshot = springs(make_atoms(11)), make_atoms(12) * 2
    cell = extract_cluster(snapshot, 3, 3.0, 1.0, cutoff=4.0, repair='drop', bond_scale=0.75)
    builder.clusters = {'cell': ClusterData(cell), 'frame': ClusterData(take_whole(snapshot, 3))}
    _, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    told = {single.inputs.structure.is_whole: single.called[0].label for single in singles_of(node)}
    assert told == {False: 'cut out', True: 'whole'}


def test_it_is_tried_with_other_settings_and_the_last_reason_is_given(springs):
    outputs, node = run_get_node(springs(make_atoms(2), patience=0))
    assert node.is_finished_ok, node.exit_message
    (single,) = singles_of(node)
    tries = [child for child in single.called if child.process_label == 'SpringsWorkChain']
    assert [child.exit_status for child in sorted(tries, key=lambda child: child.pk)] == [300, 300, 0]

    builder = springs(make_atoms(3), patience=0)
    builder.retries = [{'springs': {'patience': 1}}]
    outputs, node = run_get_node(builder)
    assert node.exit_status == 401
    (reason,) = outputs['failures'].get_dict().values()
    assert '2 of 2 tries failed, the last: SpringsWorkChain' in reason
    assert 'a spring broke' in reason


def test_sites_that_are_no_element_are_not_labelled(springs):
    alloy = orm.StructureData(cell=np.eye(3) * 3)
    alloy.append_atom(symbols=['Al', 'Mg'], weights=[0.5, 0.5], position=(0, 0, 0), name='AlMg')
    builder = springs(make_atoms(4))
    builder.clusters = {'c0': orm.StructureData(ase=make_atoms(5)), 'c1': alloy}
    with pytest.raises(ValueError, match='alloy'):  # the queue itself cannot say what atoms these are
        run_get_node(builder)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('orca', "there is no adapter 'orca'; there are cp2k, vasp, or give the class"),
        ('nowhere:Adapter', "adapter 'nowhere:Adapter' cannot be imported"),
        ('aiida_oodal.data:ClusterData', 'is no adapter: it must be a subclass of'),
    ],
)
def test_adapters_that_are_none(name, message):
    with pytest.raises(OodalError, match=message):
        load_adapter(name)


def test_a_plugin_that_is_missing_is_named():
    class LostAdapter(SpringsAdapter):
        WORKFLOW = 'lost.workflow'
        INSTALL = 'aiida-lost'

    with pytest.raises(OodalError, match=r"'lost.workflow' is not there .*`pip install aiida-lost`"):
        load_workflow(LostAdapter())


def test_retries_change_what_is_in_a_dict_only():
    inputs = {'job': {'parameters': orm.Dict({'a': {'b': 1, 'c': 2}}), 'code': orm.Int(1)}}
    changed = change(inputs, {'job': {'parameters': {'a': {'b': 3}}}})
    assert changed['job']['parameters'].get_dict() == {'a': {'b': 3, 'c': 2}}
    assert inputs['job']['parameters'].get_dict() == {'a': {'b': 1, 'c': 2}}
    with pytest.raises(OodalError, match="'code' is no Dict among the inputs code, parameters"):
        change(inputs, {'job': {'code': 2}})


@pytest.fixture(scope='session')
def cp2k_code(localhost):
    require('cp2k', 'aiida_cp2k')
    path = find_program('cp2k')
    return orm.InstalledCode(
        label='cp2k', computer=localhost, filepath_executable=path, default_calc_job_plugin='cp2k'
    ).store()


@pytest.fixture
def cp2k_builder(cp2k_code, localhost):
    """Return a function that fills the builder of the labeller for cells of two atoms."""
    smeared = {
        'ADDED_MOS': 8,
        'SMEAR': {'_': 'ON', 'METHOD': 'FERMI_DIRAC', 'ELECTRONIC_TEMPERATURE': 3000},
        'MIXING': {'METHOD': 'BROYDEN_MIXING', 'ALPHA': 0.3},
    }

    def fill(scf=None, **overrides):
        parameters = {'FORCE_EVAL': {'DFT': {'SCF': {**smeared, **(scf or {})}}}}
        return WorkflowLabelWorkChain.get_builder_from_protocol(
            code=cp2k_code,
            computer=localhost,
            protocol='quick',
            overrides={
                'adapter': 'cp2k',
                'elements': ['Al', 'Si'],
                'workflow': {'parameters': parameters},
                **overrides,
            },
            options={'withmpi': False},
        )

    return fill


def make_pair(seed=3):
    atoms = bulk('SiAl', 'rocksalt', a=5.0, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


@pytest.mark.slow
def test_cp2k_labels_and_its_forces_are_those_of_its_energies(cp2k_builder):
    step, atoms = 0.02, make_pair()
    moved, strained = [], []
    for sign in (1, -1):
        moved.append(atoms.copy())
        moved[-1].positions[1, 0] += sign * step
        strained.append(atoms.copy())
        strained[-1].set_cell(atoms.cell.array @ (np.eye(3) + np.diag([sign * step, 0, 0])), scale_atoms=True)
    builder = cp2k_builder()
    frames = [atoms, *moved, *strained]
    builder.clusters = {f'c{number}': orm.StructureData(ase=frame) for number, frame in enumerate(frames)}
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    by_node = {entry.node: entry.key for entry in find_entries(campaign=node.uuid)}
    found = {label.info['queue_key']: label for label in outputs['labels']}
    label, up, down, pulled, pressed = [found[by_node[node.inputs.clusters[f'c{n}'].uuid]] for n in range(5)]
    assert label.get_chemical_symbols() == atoms.get_chemical_symbols()
    energy = [frame.info['REF_energy'] for frame in (up, down, pulled, pressed)]
    np.testing.assert_allclose(label.arrays['REF_forces'][1, 0], -(energy[0] - energy[1]) / (2 * step), rtol=0.02)
    stress = (energy[2] - energy[3]) / (2 * step) / atoms.get_volume()
    np.testing.assert_allclose(label.info['REF_stress'][0], stress, rtol=0.1)


@pytest.mark.slow
def test_cp2k_that_did_not_converge_is_no_label(cp2k_builder):
    """CP2K 2023.1 warns and goes on; its plugin calls that a success."""
    builder = cp2k_builder({'MAX_SCF': 2}, retries=[])
    builder.clusters = {'c0': orm.StructureData(ase=make_pair(seed=4))}
    outputs, node = run_get_node(builder)
    assert node.exit_status == 401
    assert 'the SCF did not converge' in outputs['failures']['c0']
    assert any(job.is_finished_ok for job in node.called_descendants if job.process_label == 'Cp2kCalculation')


def level_of(builder):
    return WorkflowLabelWorkChain.get_level(builder._inputs(prune=True))


def test_level_and_refusals_of_cp2k(cp2k_builder):
    level = level_of(cp2k_builder()).hash
    assert level_of(cp2k_builder({'MAX_SCF': 5, 'MIXING': {'ALPHA': 0.05}})).hash == level
    assert level_of(cp2k_builder({'EPS_SCF': 1e-5})).hash != level
    assert level_of(cp2k_builder(potential='GTH-PADE')).hash != level
    builder = cp2k_builder({'ignore_convergence_failure': True})
    builder.clusters = {'c0': orm.StructureData(ase=make_pair())}
    with pytest.raises(ValueError, match='what did not converge is no label'):
        run_get_node(builder)
    builder = cp2k_builder(elements=['Al'])
    builder.clusters = {'c0': orm.StructureData(ase=make_pair())}
    with pytest.raises(ValueError, match='there is no KIND for Si, only for Al'):
        run_get_node(builder)


#: The head of a POTCAR, as far as aiida-vasp reads it; not a potential.
POTCAR = """  PAW_PBE Si 05Jan2001
 4.00000000000000
 parameters from PSCTR are:
   VRHFIN =Si: s2p2
   LEXCH  = PE
   TITEL  = PAW_PBE Si 05Jan2001
   POMASS =   28.085; ZVAL   =    4.000    mass and valenz
   ENMAX  =  245.345; ENMIN  =  184.009 eV
   END of PSCTR-controll parameters
 End of Dataset
"""


@pytest.fixture
def vasp_builder(localhost, tmp_path, aiida_profile):
    """Return a function that fills the builder; its code is a script that leaves what VASP left when recorded."""
    require('aiida_vasp')
    from aiida_vasp.data.potcar import PotcarData, PotcarGroup

    potcars = tmp_path / 'potcars' / 'Si'
    potcars.mkdir(parents=True)
    (potcars / 'POTCAR').write_text(POTCAR)
    if not orm.QueryBuilder().append(PotcarGroup, filters={'label': 'recorded'}).count():
        PotcarData.upload_potcar_family(potcars.parent, 'recorded', 'the head of one', stop_if_existing=False)

    def fill(recorded, **overrides):
        folder = tmp_path / recorded
        with tarfile.open(VASP / f'{recorded}.tar.gz') as archive:
            archive.extractall(folder, filter='data')
        script = tmp_path / f'{recorded}.sh'
        script.write_text(f'#!/bin/sh\ncd "$PWD" && cp {folder}/OUTCAR {folder}/CONTCAR {folder}/vasprun.xml .\n'
                          f'cat {folder}/vasp_output\n')  # fmt: skip
        script.chmod(0o755)
        code = orm.InstalledCode(
            label=f'vasp-{recorded}', computer=localhost, filepath_executable=str(script),
            default_calc_job_plugin='vasp.vasp',
        ).store()  # fmt: skip
        return (
            WorkflowLabelWorkChain.get_builder_from_protocol(
                code=code,
                computer=localhost,
                overrides={
                    'adapter': 'vasp',
                    'elements': ['Si'],
                    'workflow': {'potential_family': 'recorded', 'max_iterations': 1, **overrides},
                    'retries': [],
                },
                options={'withmpi': False, 'resources': {'num_machines': 1}},
            ),
            ase.io.read(folder / 'POSCAR', format='vasp'),
            ase.io.read(folder / 'vasprun.xml'),
        )

    return fill


@pytest.mark.slow
def test_vasp_labels_as_it_was_recorded(vasp_builder):
    builder, atoms, recorded = vasp_builder('converged')
    builder.clusters = {'c0': orm.StructureData(ase=atoms)}
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    (label,) = outputs['labels']
    np.testing.assert_allclose(label.info['REF_energy'], recorded.get_potential_energy(force_consistent=True))
    assert abs(label.info['REF_energy'] - recorded.get_potential_energy()) > 1e-4  # which is that of sigma -> 0
    np.testing.assert_allclose(label.arrays['REF_forces'], recorded.get_forces())
    np.testing.assert_allclose(label.info['REF_stress'], recorded.get_stress(), atol=1e-6)
    (job,) = [child for child in node.called_descendants if child.process_label == 'VaspCalculation']
    assert job.inputs.parameters.get_dict().items() >= {'nsw': 0, 'isif': 2, 'ediff': 2e-6}.items()

    # the same output for other atoms is refused
    builder, atoms, _ = vasp_builder('converged')
    atoms.positions[1] += 0.1
    builder.clusters = {'c0': orm.StructureData(ase=atoms)}
    outputs, node = run_get_node(builder)
    assert 'atom 1 is' in outputs['failures']['c0']


@pytest.mark.slow
def test_vasp_that_did_not_converge_is_no_label(vasp_builder):
    # at a level of its own: that of the other record has a label for these atoms
    builder, atoms, _ = vasp_builder('elec-unconverged', parameters={'incar': {'encut': 300}})
    builder.clusters = {'c0': orm.StructureData(ase=atoms)}
    outputs, node = run_get_node(builder)
    assert node.exit_status == 401
    assert 'electronic structure is not converged' in outputs['failures']['c0']


def test_level_and_inputs_of_vasp(vasp_builder):
    level = level_of(vasp_builder('converged')[0])
    assert list(level.settings['potcars']) == ['Si']
    assert level.settings['incar']['ediff'] == '1e-06 per atom'
    assert level_of(vasp_builder('converged', parameters={'incar': {'nelm': 7, 'ncore': 4}})[0]).hash == level.hash
    assert level_of(vasp_builder('converged', parameters={'incar': {'encut': 600}})[0]).hash != level.hash
    builder, atoms, _ = vasp_builder('converged')
    given = builder._inputs(prune=True)
    adapter, structure = load_adapter('vasp'), orm.StructureData(ase=atoms)
    made = adapter.make_inputs(given['workflow'], given['settings'].get_dict(), structure, is_cluster=True)
    assert made['kpoints'].get_kpoints_mesh()[0] == [1, 1, 1]
    assert 'kpoints_spacing' not in made
    assert 'This job was submitted twice' in made['calc']['metadata']['options']['prepend_text']
    problem = adapter.check(given['workflow'], given['settings'].get_dict(), {'Si', 'Ge'})
    assert 'there is no POTCAR for Ge, only for Si' in problem
