"""Many structures in several jobs; a level of theory for each; what each label cost."""

from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from ase.build import bulk
from machine import require

from aiida_oodal.data import MaceModelData
from aiida_oodal.queue import QueueStatus, count_entries, find_entries
from aiida_oodal.workchains.label.ase import AseLabelWorkChain

MACE_ALCU = Path(__file__).parents[2] / 'data' / 'mace_alcu'


def crystals(*seeds, repeat=1):
    frames = []
    for seed in seeds:
        atoms = bulk('Al', cubic=True).repeat((repeat, 1, 1))
        atoms.rattle(0.05, seed=seed)
        frames.append(orm.StructureData(ase=atoms))
    return {f'c{seed}': node for seed, node in zip(seeds, frames, strict=True)}


@pytest.fixture
def labeller(engine_code, localhost):
    def make(clusters, **overrides):
        builder = AseLabelWorkChain.get_builder_from_protocol(code=engine_code, computer=localhost, overrides=overrides)
        builder.clusters = clusters
        return builder

    return make


def jobs_of(node):
    return [child for child in node.called_descendants if child.process_label == 'LabelCalculation']


def test_structures_of_a_size_go_into_a_job_together(labeller):
    clusters = crystals(100, 101, 102) | crystals(103, 104, repeat=2)
    outputs, node = run_get_node(labeller(clusters, batch_size=3))
    assert node.is_finished_ok, node.exit_message
    sizes = sorted(sorted(len(atoms.sites) for atoms in job.inputs.clusters.values()) for job in jobs_of(node))
    assert sizes == [[4, 4, 4], [8, 8]]
    assert outputs['labels'].n_structures == 5
    alone, twin = run_get_node(labeller(clusters, batch_size=5, calculator={'parameters': {'asap_cutoff': False}}))
    forces = {}
    for given, process in ((outputs, node), (alone, twin)):
        names = {entry.key: entry.added for entry in find_entries(campaign=process.uuid)}
        forces[process.pk] = {names[atoms.info['queue_key']]: atoms.arrays['REF_forces'] for atoms in given['labels']}
    assert len(jobs_of(twin)) == 1
    one, other = (list(dict(sorted(values.items())).values()) for values in forces.values())
    for left, right in zip(sorted(one, key=np.sum), sorted(other, key=np.sum), strict=True):
        np.testing.assert_array_equal(left, right)


def test_whoever_sees_an_entry_sees_what_its_label_cost(labeller):
    _, node = run_get_node(labeller(crystals(110, 111)))
    entries = find_entries(campaign=node.uuid)
    (job,) = jobs_of(node)
    assert all(entry.core_hours > 0 for entry in entries)
    spent = sum(entry.core_hours for entry in entries)
    assert spent == pytest.approx(job.outputs.results['core_seconds'] / 3600)


def test_the_same_nodes_at_another_level_are_labelled_as_copies(labeller):
    clusters = crystals(120, 121)
    first, one = run_get_node(labeller(clusters))
    second, two = run_get_node(labeller(clusters, calculator={'calculator': 'lj', 'parameters': {'sigma': 2.5}}))
    assert one.is_finished_ok
    assert two.is_finished_ok, two.exit_message
    assert [call.process_label for call in two.called] == ['copy_structures', 'LabelCalculation']
    assert {entry.theory for entry in find_entries(campaign=one.uuid)} == {'emt'}
    assert {entry.theory for entry in find_entries(campaign=two.uuid)} == {'lj sigma=2.5'}
    levels = [set(outputs['labels'].get_set().info['level_of_theory']) for outputs in (first, second)]
    assert levels[0] != levels[1]
    # the copies lead back to the nodes that were given
    (job,) = jobs_of(two)
    for copy in job.inputs.clusters.values():
        given = copy.creator.base.links.get_incoming(link_type=LinkType.INPUT_CALC).all_nodes()
        assert {node.uuid for node in given} == {node.uuid for node in clusters.values()}
    # and are found again
    again, three = run_get_node(labeller(clusters, calculator={'calculator': 'lj', 'parameters': {'sigma': 2.5}}))
    assert jobs_of(three) == []
    assert again['labels'].uuid == second['labels'].uuid


@pytest.mark.slow
def test_a_mace_model_labels(labeller):
    """Distillation: an ensemble member, or a foundation model, is the teacher of a cheaper potential."""
    require('mace')
    teacher = {
        'calculator': 'mace.calculators:MACECalculator',
        'parameters': {'model_paths': '{teacher}', 'device': 'cpu', 'default_dtype': 'float64'},
    }
    model = MaceModelData(MACE_ALCU / 'w1.model')
    outputs, node = run_get_node(labeller(crystals(130, 131), calculator=teacher, files={'teacher': model}))
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 2
    other = AseLabelWorkChain.get_level(
        {'calculator': node.inputs.calculator, 'files': {'teacher': MaceModelData(MACE_ALCU / 'w2.model')}}
    )
    assert AseLabelWorkChain.get_level(node.inputs).hash != other.hash
    assert 'MACECalculator' in find_entries(campaign=node.uuid)[0].theory


def test_a_calculator_that_cannot_be_made_costs_no_label_and_is_told(labeller):
    before = count_entries()[QueueStatus.LABELLED]
    _, node = run_get_node(labeller(crystals(140, 141), calculator={'calculator': 'oracle.ase:Oracle'}))
    assert node.exit_status == 401
    assert "'oracle.ase:Oracle' cannot be found" in node.exit_message
    assert count_entries()[QueueStatus.LABELLED] == before


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'batch_size': 0}, 'batch_size = 0 must be at least 1'),
        ({'max_failures': 0}, 'max_failures = 0 must be at least 1'),
        ({'calculator': {'calculator': 'emtt'}}, "'emtt' cannot be found"),
        ({'calculator': {'parameters': {'asap_cutof': 1}}}, "did you mean 'asap_cutoff'"),
        ({'files': {'model': 'a file'}}, "'model' is not used"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_submitted(labeller, overrides, message):
    if 'files' in overrides:
        overrides = {'files': {'model': orm.SinglefileData.from_string('a model')}}
    with pytest.raises(ValueError, match=message):
        run_get_node(labeller(crystals(150), **overrides))
