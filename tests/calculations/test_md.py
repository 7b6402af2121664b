import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, StructureData
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixCartesian

from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import StructureSetData


def test_a_run_to_the_last_step(md_inputs):
    outputs, node = run_get_node(MdCalculation, **md_inputs(ensemble='npt', sample_every=10))
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert (results['outcome'], results['last_step'], results['trigger_step']) == ('COMPLETED', 40, None)
    series = {name: outputs['series'].get_array(name) for name in outputs['series'].get_arraynames()}
    assert series['step'].tolist() == [0, 10, 20, 30, 40]
    assert series['max_gamma'].max() == pytest.approx(results['max_gamma'], rel=1e-3)
    assert series['temp'][0] == pytest.approx(300.0)
    final = outputs['final'].get_atoms(0)
    assert final.info['step'] == 40
    assert final.arrays['gamma'].max() == pytest.approx(series['max_gamma'][-1], rel=1e-3)
    assert 'snapshots' not in outputs


def test_a_halt_is_a_success_with_snapshots(md_inputs):
    settings = {'temperature': 3000, 'gamma_select': 1.1, 'gamma_break': 1.5, 'sample_every': 10, 'steps': 2000}
    outputs, node = run_get_node(MdCalculation, **md_inputs(**settings))
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert results['outcome'] == 'UNCERTAIN'
    assert results['max_gamma'] > 1.5
    assert results['trigger_step'] == results['last_step'] < 2000
    frames = outputs['snapshots'].get_set()
    assert frames.info['step'].tolist() == sorted(frames.info['step'])
    assert frames[-1].info['step'] == results['trigger_step']
    assert frames[-1].arrays['gamma'].max() == pytest.approx(results['max_gamma'], rel=1e-3)
    index, gamma = results['worst_atoms'][0]
    assert frames[-1].arrays['gamma'][index] == pytest.approx(gamma)


def test_lost_atoms_are_told_and_the_frames_before_are_kept(md_inputs):
    outputs, node = run_get_node(
        MdCalculation,
        **md_inputs(timestep_ps=0.1, ensemble='nve', temperature=3000, gamma_every=1, sample_every=1, steps=200),
    )
    assert not node.is_finished_ok
    assert node.exit_status in (410, 420), node.exit_message
    assert outputs['results']['outcome'] in ('LOST_ATOMS', 'EXPLODED')
    assert node.exit_message == outputs['results']['message']


def test_only_physical_frames_go_out_as_final(md_inputs):
    settings = {'timestep_ps': 0.02, 'temperature_damping_ps': 1.0, 'temperature': 3000, 'gamma_every': 1}
    settings |= {'sample_every': 1, 'steps': 400, 'gamma_select': 1.0, 'gamma_break': 90, 'gamma_ceiling': 95}
    outputs, node = run_get_node(MdCalculation, **md_inputs(**settings))
    results = outputs['results'].get_dict()
    assert results['outcome'] in ('LOST_ATOMS', 'EXPLODED', 'UNCERTAIN'), node.exit_message
    assert results['max_gamma'] > 90
    final = outputs['final'].get_atoms(0)
    assert (final.info['step'], len(final)) == (results['last_valid_step'], 108)
    assert final.arrays['gamma'].max() <= 95
    assert all(frame.arrays['gamma'].max() <= 95 for frame in outputs['snapshots'])


def test_a_start_over_the_ceiling_gives_no_frame(md_inputs):
    inputs = md_inputs(steps=20, gamma_select=0.01, gamma_break=0.02, gamma_ceiling=0.03)
    outputs, node = run_get_node(MdCalculation, **inputs)
    assert node.exit_status == 420
    assert not {'final', 'snapshots'} & set(outputs)
    assert 'nothing to go on from' in node.exit_message
    assert 'restart file' not in node.exit_message


def test_held_atoms_do_not_move_and_come_back_held(md_inputs):
    slab = fcc111('Al', (3, 3, 4), a=4.05, vacuum=8.0)
    slab.pbc = [True, True, False]
    slab.info.clear()
    slab.set_constraint(FixAtoms([atom.index for atom in slab if atom.tag > 2]))
    inputs = md_inputs(temperature=600, initial_temperature=600, gamma_select=0.001, steps=100, sample_every=50)
    inputs['structure'] = StructureSetData([slab])
    outputs, node = run_get_node(MdCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message
    held = slab.constraints[0].index
    for frame in [*outputs['snapshots'], *outputs['final']]:
        assert frame.constraints[0].index.tolist() == held.tolist()
        np.testing.assert_allclose(frame.positions[held], slab.positions[held], atol=1e-9)
        assert not frame.get_velocities()[held].any()
        np.testing.assert_allclose(frame.cell.array, slab.cell.array, atol=1e-9)
    moved = np.linalg.norm(outputs['final'].get_atoms(0).positions - slab.positions, axis=1)
    assert moved.max() > 0.05
    assert outputs['series'].get_array('temp')[0] == pytest.approx(600.0)


def test_masses_are_used_and_come_back(md_inputs):
    atoms = bulk('Al', cubic=True, a=4.0).repeat(3)
    masses = [10.0] * 54 + [40.0] * 54
    atoms.set_masses(masses)
    inputs = md_inputs(ensemble='nve', initial_temperature=600, gamma_select=0.001, sample_every=20, gamma_break=90)
    inputs['structure'] = StructureSetData([atoms])
    outputs, node = run_get_node(MdCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message
    kinetic = dict(zip(*(outputs['series'].get_array(name).tolist() for name in ('step', 'kineng')), strict=True))
    frames = {frame.info['step']: frame for frame in [*outputs['snapshots'], *outputs['final']]}
    assert set(kinetic) <= set(frames)
    for step, frame in frames.items():
        assert frame.get_masses().tolist() == masses
        assert step not in kinetic or frame.get_kinetic_energy() == pytest.approx(kinetic[step], rel=1e-4)
    # the mean kinetic energy of all atoms is the same, so that light ones are twice as fast
    speeds = np.linalg.norm(outputs['snapshots'].get_atoms(0).get_velocities(), axis=1)
    assert speeds[:54].mean() / speeds[54:].mean() == pytest.approx(2.0, rel=0.15)
    assert np.ptp(outputs['series'].get_array('toteng')) < 0.05


def test_npt_runs_from_a_cell_that_leans_far(md_inputs):
    atoms = bulk('Al', a=4.0).repeat((2, 2, 8))
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.01, size=(32, 3)))
    settings = {'ensemble': 'npt', 'gamma_select': 0.001, 'sample_every': 10, 'gamma_break': 90, 'timestep_ps': 0.001}
    inputs = md_inputs(**settings)
    inputs['structure'] = StructureSetData([atoms])
    outputs, node = run_get_node(MdCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message
    first, final = outputs['snapshots'].get_atoms(0), outputs['final'].get_atoms(0)
    np.testing.assert_allclose(first.cell.array, atoms.cell.array, atol=1e-9)
    np.testing.assert_allclose(first.get_velocities(), atoms.get_velocities(), atol=1e-12)
    wrapped = first.get_scaled_positions(wrap=False) - atoms.get_scaled_positions(wrap=False)
    np.testing.assert_allclose(wrapped, np.rint(wrapped), atol=1e-9)
    np.testing.assert_allclose(final.cell.angles(), 60.0, atol=1e-6)
    assert final.cell.lengths()[2] == pytest.approx(4 * final.cell.lengths()[0], rel=1e-6)


def test_frames_come_back_in_the_orientation_of_the_structure(md_inputs):
    rotated = bulk('Al', a=4.0).repeat(4)
    rotated.rotate(35, (1, 2, 3), rotate_cell=True)
    inputs = md_inputs(ensemble='nve', temperature=1, steps=10)
    inputs['structure'] = StructureSetData([rotated])
    outputs, _ = run_get_node(MdCalculation, **inputs)
    final = outputs['final'].get_atoms(0)
    np.testing.assert_allclose(final.cell.array, rotated.cell.array, atol=1e-9)
    moved = np.linalg.norm(final.get_scaled_positions() - rotated.get_scaled_positions(), axis=1)
    wrapped = (final.get_scaled_positions() - rotated.get_scaled_positions() + 0.5) % 1.0 - 0.5
    assert len(moved) == 64
    assert np.abs(wrapped @ rotated.cell.array).max() < 0.05


def test_velocities_of_the_structure_are_kept(md_inputs):
    moving = bulk('Al', a=4.0, cubic=True).repeat(3)
    moving.set_velocities(np.tile([0.01, 0.0, 0.0], (len(moving), 1)))
    inputs = md_inputs(ensemble='nve', steps=10, gamma_every=10)
    inputs['structure'] = StructureSetData([moving])
    outputs, _ = run_get_node(MdCalculation, **inputs)
    np.testing.assert_allclose(outputs['final'].get_atoms(0).get_velocities()[:, 0], 0.01, rtol=1e-6)


def test_the_input_files_are_recorded_and_the_structure_is_not_kept_twice(md_inputs):
    _, node = run_get_node(MdCalculation, **md_inputs(steps=10))
    names = node.base.repository.list_object_names()
    assert {'md.in', 'job.json'} <= set(names)
    assert not {'structure.data', 'potential.yaml', 'active_set.asi'} & set(names)
    assert 'fix' in node.base.repository.get_object_content('md.in')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'settings': Dict}, 'MD settings: temperature is missing'),
        ({'structure': 'Cu'}, 'the structure has Cu, .*Al'),
        ({'restart_file': 'restart.1'}, "restart_file = 'restart.1' needs parent_folder"),
        ({'restart_file': '../x'}, "restart_file = '../x' is not the name of a file"),
        ({'held': FixAtoms([0]), 'ensemble': 'npt'}, "1 atoms are held fixed .*in ensemble = 'npt' the cell moves all"),
        ({'held': FixAtoms(range(4))}, 'all 4 atoms are held fixed: nothing would move'),
        ({'held': FixCartesian([1], (0, 0, 1))}, 'atom 1 is held along z only, which MD cannot do'),
        ({'masses': [-1, 1, 1, 1]}, 'atom 0 has the mass -1 u'),
    ],
)
def test_what_cannot_run_is_refused_at_submission(md_inputs, changes, message):
    inputs = md_inputs()
    if 'settings' in changes:
        inputs['settings'] = Dict({})
    elif {'held', 'masses'} & set(changes):
        atoms = bulk('Al', cubic=True)
        atoms.set_constraint(changes.get('held'))
        atoms.set_masses(changes.get('masses', 'defaults'))
        inputs = md_inputs(ensemble=changes.get('ensemble', 'nvt')) | {'structure': StructureSetData([atoms])}
    elif 'structure' in changes:
        inputs['structure'] = StructureData(ase=bulk('Cu', cubic=True))
    else:
        inputs.update(changes)
    with pytest.raises(ValueError, match=message):
        run_get_node(MdCalculation, **inputs)


@pytest.mark.parametrize('name', [None, 'final.restart'])
def test_a_run_without_parent_takes_what_was_the_default_once(md_inputs, name):
    # Runs made then have it as an input, and must not be refused when they are made again.
    inputs = md_inputs(steps=10) | {'run_to': None, 'parent_folder': None, 'restart_file': name}
    _, node = run_get_node(MdCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message


def test_the_engine_is_refused_as_several_mpi_processes(md_inputs):
    inputs = md_inputs()
    resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 2}
    inputs['metadata']['options'] = {'withmpi': True, 'resources': resources}
    with pytest.raises(ValueError, match='withmpi = True with 2 MPI processes: the engine runs as one process'):
        run_get_node(MdCalculation, **inputs)


def test_a_job_that_leaves_nothing_says_where_to_look(md_inputs):
    inputs = md_inputs()
    inputs['metadata']['options'] = {'prepend_text': 'echo out of disk >&2; exit 1'}
    _, node = run_get_node(MdCalculation, **inputs)
    assert node.exit_status == 302
    assert 'log.lammps' in node.exit_message
    assert 'out of disk' in node.exit_message


def test_of_a_damaged_dump_the_frames_before_the_damage_are_kept(md_inputs):
    settings = {'temperature': 3000, 'gamma_select': 1.01, 'gamma_break': 1.5, 'gamma_every': 2, 'sample_every': 2}
    inputs = md_inputs(**settings, steps=2000)
    inputs['metadata']['options'] = {'append_text': "sed -i '$ s/.*/these are no numbers/' snapshots.dump"}
    outputs, node = run_get_node(MdCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['outcome'] == 'UNCERTAIN'
    assert 'snapshots.dump' in outputs['results']['message']
    steps = outputs['snapshots'].get_set().info['step'].tolist()
    assert len(steps) > 1
    assert steps[-1] == outputs['results']['trigger_step']  # that of the last frame, which has a file of its own
