"""Labels by pw.x: the right values, in our units and our order, or none at all."""

import itertools

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk
from ase.calculators.espresso import Espresso, EspressoProfile

from aiida_oodal.data import ClusterData, StructureSetData
from aiida_oodal.queue import QueueStatus, find_entries

pytestmark = pytest.mark.slow

#: Strain and displacement (angstrom) of finite differences.
STEP = 0.02


def make_cell(*symbols, seed=3, a=4.05):
    """Return a cell of two atoms, far from where its forces vanish."""
    atoms = bulk('Al', a=a).repeat((2, 1, 1))
    atoms.symbols[:] = symbols or ('Al', 'Al')
    atoms.rattle(0.1, seed=seed)
    return atoms


def sabotage():
    """Return settings that let no SCF converge, and PwBaseWorkChain try once."""
    return {'workflow': {'max_iterations': 1, 'pw': {'parameters': {'ELECTRONS': {'electron_maxstep': 2}}}}}


def run(builder, *frames):
    builder.clusters = {f'c{number}': atoms for number, atoms in enumerate(map(as_node, frames))}
    return run_get_node(builder)


def as_node(frame):
    return orm.StructureData(ase=frame) if not isinstance(frame, orm.Node) else frame


def labels_of(outputs, node):
    """Return the labelled structures in the order in which they were given."""
    by_node = {entry.node: entry.key for entry in find_entries(campaign=node.uuid)}
    found = {atoms.info['queue_key']: atoms for atoms in outputs['labels']}
    given = sorted(node.inputs.clusters.items(), key=lambda item: int(item[0][1:]))
    return [found.get(by_node[cluster.uuid]) for _, cluster in given]


def jobs_of(node):
    return [child for child in node.called_descendants if child.process_label == 'PwCalculation']


def test_values_are_those_of_finite_differences_and_of_ase(pw_builder, pw_path, pseudos, tmp_path):
    """Forces by moving an atom, stress by straining the cell; everything against ASE's own Espresso."""
    # Mg first: kinds are sorted by name in the input of pw.x, atoms are not. A large degauss tells F from E.
    atoms = make_cell('Mg', 'Al')
    moved, strained = [], []
    for sign in (1, -1):
        moved.append(atoms.copy())
        moved[-1].positions[0, 1] += sign * STEP
        strained.append(atoms.copy())
        strained[-1].set_cell(atoms.cell.array @ (np.eye(3) + np.diag([0, 0, sign * STEP])), scale_atoms=True)
    # Enough plane waves that the stress at a fixed cutoff is that of the energies at it.
    overrides = {'workflow': {'pw': {'parameters': {'SYSTEM': {'ecutwfc': 30.0, 'ecutrho': 120.0, 'degauss': 0.1}}}}}
    outputs, node = run(pw_builder(**overrides), atoms, *moved, *strained)
    assert node.is_finished_ok, node.exit_message
    label, up, down, pulled, pressed = labels_of(outputs, node)
    assert label.get_chemical_symbols() == ['Mg', 'Al']
    energy = [found.info['REF_energy'] for found in (up, down, pulled, pressed)]
    np.testing.assert_allclose(label.arrays['REF_forces'][0, 1], -(energy[0] - energy[1]) / (2 * STEP), rtol=0.01)
    stress = (energy[2] - energy[3]) / (2 * STEP) / atoms.get_volume()
    np.testing.assert_allclose(label.info['REF_stress'][2], stress, rtol=0.05)

    job = jobs_of(node)[0].inputs
    atoms.calc = Espresso(
        profile=EspressoProfile(pw_path, '/'),
        directory=tmp_path,
        input_data={
            'control': {'pseudo_dir': str(next(iter(pseudos.values())).parent), 'tprnfor': True, 'tstress': True},
            'system': job.parameters['SYSTEM'],
            'electrons': job.parameters['ELECTRONS'],
        },
        pseudopotentials={symbol: path.name for symbol, path in pseudos.items() if symbol in atoms.symbols},
        kpts=job.kpoints.get_kpoints_mesh()[0],
    )
    np.testing.assert_allclose(label.info['REF_energy'], atoms.get_potential_energy(force_consistent=True), atol=1e-5)
    np.testing.assert_allclose(label.arrays['REF_forces'], atoms.get_forces(), atol=1e-4)
    np.testing.assert_allclose(label.info['REF_stress'], atoms.get_stress(), atol=1e-5)


def make_cluster():
    """Return a cluster as carving makes them, but for its size."""
    atoms = make_cell('Al', 'Mg')
    atoms.arrays |= {'force_mask': np.array([1.0, 0.0]), 'parent_index': np.array([17, 4])}
    where = {'center_parent_index': 17, 'radius': 1.0, 'buffer': 1.0, 'shape': 'cube', 'repair': 'error'}
    atoms.info |= {**where, 'gamma_parent': 6.5}
    return ClusterData(atoms)


def test_a_cluster_has_the_gamma_point_and_keeps_its_mask(pw_builder):
    outputs, node = run(pw_builder(), make_cluster())
    assert node.is_finished_ok, node.exit_message
    (label,) = labels_of(outputs, node)
    assert label.arrays['force_mask'].tolist() == [1.0, 0.0]
    assert label.info['gamma_parent'] == 6.5
    assert np.abs(label.arrays['REF_forces'][1]).max() > 0.01
    (job,) = jobs_of(node)
    assert job.inputs.settings['gamma_only'] is True
    assert job.inputs.kpoints.get_kpoints_mesh()[0] == [1, 1, 1]
    assert sorted(job.inputs.pseudos) == ['Al', 'Mg']


def test_a_cell_has_k_points_by_density_and_one_kind_for_each_element(pw_builder):
    tagged = make_cell(seed=5)
    tagged.set_tags([1, 2])
    given = orm.StructureData(ase=tagged)
    assert given.get_kind_names() == ['Al1', 'Al2']
    outputs, node = run(pw_builder(), given)
    assert node.is_finished_ok, node.exit_message
    (label,) = labels_of(outputs, node)
    assert 'force_mask' not in label.arrays
    (job,) = jobs_of(node)
    assert job.inputs.structure.get_kind_names() == ['Al']
    assert sorted(job.inputs.pseudos) == ['Al']
    assert np.prod(job.inputs.kpoints.get_kpoints_mesh()[0]) > 1
    (entry,) = find_entries(campaign=node.uuid)
    assert label.info['level_of_theory'] == entry.level
    assert entry.theory == 'pw.x 12.0 Ry, Al.pz-vbc.UPF, Mg.pz-n-vbc.UPF'


def test_what_does_not_converge_is_no_label_whatever_it_left(pw_builder):
    """Two steps of an SCF leave an energy in the output; nobody may take it for a label."""
    outputs, node = run(pw_builder(retries=[], **sabotage()), make_cell(seed=7))
    assert node.exit_status == 401
    assert 'labels' not in outputs
    (job,) = jobs_of(node)
    assert 'output_trajectory' in job.outputs
    assert np.isfinite(job.outputs.output_trajectory.get_array('energy')).all()
    (entry,) = find_entries(QueueStatus.FAILED, campaign=node.uuid)
    assert 'The electronic minimization cycle did not reach self-consistency' in entry.reason


def test_other_settings_are_tried_before_it_has_failed(pw_builder):
    more = {'pw': {'parameters': {'ELECTRONS': {'electron_maxstep': 80, 'mixing_beta': 0.3}}}}
    outputs, node = run(pw_builder(retries=[more], **sabotage()), make_cell(seed=8))
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 1
    first, second = sorted(jobs_of(node), key=lambda job: job.pk)
    assert (first.exit_status, second.exit_status) == (410, 0)
    assert second.inputs.parameters['ELECTRONS'].items() >= {'electron_maxstep': 80, 'mixing_beta': 0.3}.items()
    # the same level of theory, and one entry that was tried once as far as the queue knows
    (entry,) = find_entries(QueueStatus.LABELLED, campaign=node.uuid)
    assert entry.attempts == 1


def test_one_that_fails_fails_alone_and_nonsense_is_refused(pw_builder):
    quiet = bulk('Al', a=4.05).repeat((2, 1, 1))
    outputs, node = run(pw_builder(max_force=0.3), quiet, make_cell(a=4.0))
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 1
    failures = outputs['failures'].get_dict()
    assert list(failures) == ['c1']
    assert 'over the limit max_force = 0.3' in failures['c1']


def test_a_batch_rolls_on(pw_builder):
    """Never more than one at once; each begins when the one before has ended."""
    frames = [make_cell(seed=seed) for seed in (11, 12, 13)]
    builder = pw_builder(batch_size=1)
    builder.structures = StructureSetData(frames)
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 3
    singles = sorted((child for child in node.called if child.process_label == 'LabelSingleWorkChain'),
                     key=lambda child: child.pk)  # fmt: skip
    assert len(singles) == 3
    for before, after in itertools.pairwise(singles):
        ended = max(child.ctime for child in before.called_descendants)
        assert after.ctime > ended
