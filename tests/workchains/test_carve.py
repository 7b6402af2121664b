"""An ensemble of MACE models looks at carved cells: alone where it graded MD, beside ACE as a second opinion."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.orm import Dict
from ase import Atoms
from ase.build import bulk
from ase.io import read
from machine import require

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.select_clusters import SelectClustersCalculation
from aiida_oodal.data import AcePotentialData, ClusterData, MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.report.campaign.why import explain
from aiida_oodal.workchains.carve import CarveWorkChain

require('mace')

DATA = Path(__file__).parents[1] / 'data'
THRESHOLDS = {'gamma_select': 1.0, 'gamma_break': 5.0, 'gamma_ceiling': 1e4}
#: Both layers of the tiny models together see 8.4 angstrom.
WIDE = {
    'radius': 4.0,
    'buffer': 4.5,
    'cutoff': 4.2,
    'bond_scale': 0.0,
    'tolerance': 1e-4,
}


@pytest.fixture(scope='module')
def shared(localhost):
    tiny = runpy.run_path(str(Path(__file__).with_name('tiny_ensemble.py')))
    models = {label: MaceModelData(path).store() for label, path in tiny['MODELS'].items()}
    return tiny | {'ensemble': {'models': models, 'reference': OodReferenceData(tiny['fit']()).store()}}


@pytest.fixture(scope='module')
def inputs(shared, localhost):
    def factory(snapshots, **carve):
        return {
            'snapshots': snapshots,
            'carve': {'settings': Dict(carve), 'code': get_engine_code(), 'metadata': {'computer': localhost}},
            'ensemble': shared['ensemble'],
            'thresholds': Dict(THRESHOLDS),
        }

    return factory


@pytest.fixture(scope='module')
def graded(shared):
    """Return warm Al with one hot spot, graded by the ensemble as MD that it watches is."""
    atoms = bulk('Al', cubic=True, a=4.0).repeat(5)
    atoms.rattle(0.05, seed=3)
    random = np.random.default_rng(1)
    for centre in (17, 260, 420):
        near = np.flatnonzero(atoms.get_distances(centre, range(len(atoms)), mic=True) < 4.5)
        atoms.positions[near] += random.normal(scale=0.4, size=(len(near), 3))
    latents = shared['latents_of']([atoms])
    reference = shared['ensemble']['reference'].get_reference()
    atoms.arrays['gamma'] = reference.gamma(latents.numbers, latents.latents)
    atoms.info['step'] = 40
    return StructureSetData([atoms]).store()


@pytest.fixture(scope='module')
def hot(aiida_profile):
    """Return 500 hot atoms with the gamma that LAMMPS with ML-PACE gave them, and the potential that did."""
    frame = read(DATA / 'ace-al' / 'native_snapshot' / 'snap.dump', format='lammps-dump-text')
    atoms = Atoms('Al500', positions=frame.positions, cell=frame.cell, pbc=True, info={'step': 300})
    atoms.arrays['gamma'] = frame.arrays['f_pg'].ravel()
    return StructureSetData([atoms]).store(), AcePotentialData(
        DATA / 'ace-al' / 'Al.yaml', DATA / 'ace-al' / 'Al.asi'
    ).store()


def reports(node):
    return [entry.message for entry in orm.Log.collection.get_logs_for(node)]


@pytest.fixture(scope='module')
def carved(inputs, graded):
    outputs, node = run_get_node(CarveWorkChain, **inputs(graded, **WIDE))
    assert node.is_finished_ok, node.exit_message
    return outputs


def test_a_small_snapshot_becomes_one_cluster_as_a_whole(inputs, graded):
    outputs, node = run_get_node(CarveWorkChain, **inputs(graded, **WIDE, whole_atoms=500))
    assert node.is_finished_ok, node.exit_message
    (whole,) = outputs['clusters'].values()
    frame, back = graded.get_atoms(0), whole.get_atoms()
    assert whole.is_whole
    assert back.cell.cellpar() == pytest.approx(frame.cell.cellpar())
    np.testing.assert_allclose(back.positions, frame.positions[back.arrays['parent_index']])
    assert whole.base.attributes.get('gamma_cluster') == pytest.approx(frame.arrays['gamma'].max(), rel=1e-4)
    assert whole.force_mask.all()
    told = explain(whole)
    assert f'The snapshots are StructureSetData<{graded.pk}>; what made them is not in the graph.' in told[1].sentences
    assert told[0].sentences == ('It is a whole snapshot of 500 atoms, asked for because of one Al atom.',)


def test_clusters_of_md_that_an_ensemble_graded_show_its_gamma(carved, graded, shared):
    gamma = graded.get_atoms(0).arrays['gamma']
    clusters = carved['clusters']
    assert len(clusters) == 3
    for cluster in clusters.values():
        attributes = cluster.base.attributes
        centre = attributes.get('center_parent_index')
        assert attributes.get('gamma_parent') == pytest.approx(gamma[centre])
        assert attributes.get('gamma_cluster') == pytest.approx(gamma[centre], rel=1e-3)
        assert attributes.get('faithful') is True
        ratio = attributes.get('score') / attributes.get('score_threshold')
        assert ratio == pytest.approx(attributes.get('gamma_cluster'))
        # and this is what the models say of the cluster itself
        latents = shared['latents_of']([cluster.get_atoms()])
        own = shared['ensemble']['reference'].get_reference().gamma(latents.numbers, latents.latents)
        assert attributes.get('gamma_cluster') == pytest.approx(own[0], rel=1e-3)
        above = np.count_nonzero(own[cluster.force_mask == 0.0] > 5.0)
        assert attributes.get('buffer_above_break') == above
    assert max(gamma) == pytest.approx(clusters['c0'].base.attributes.get('gamma_parent'))


def test_a_cell_smaller_than_what_the_models_see_is_refused_or_flagged(inputs, graded):
    small = {'radius': 2.5, 'buffer': 1.75, 'shape': 'sphere'}
    outputs, node = run_get_node(CarveWorkChain, **inputs(graded, **(WIDE | small)))
    assert node.is_finished_ok, node.exit_message
    assert not outputs.get('clusters')
    for centre in outputs['carving']['centres']:
        assert not centre['taken']
        assert 'does not show the failure' in centre['reason']
    outputs, node = run_get_node(CarveWorkChain, **inputs(graded, **(WIDE | small), unfaithful='flag'))
    assert len(outputs['clusters']) == 3
    for cluster in outputs['clusters'].values():
        assert cluster.base.attributes.get('faithful') is False


@pytest.mark.parametrize('method', ['farthest', 'kmeans'])
def test_a_choice_by_spread_needs_no_active_set(carved, shared, localhost, engine_code, method):
    clusters = carved['clusters']
    choose = {
        'code': engine_code,
        'settings': Dict({'method': method, 'max_clusters': 2}),
        'thresholds': Dict(THRESHOLDS),
        'ensemble': shared['ensemble'],
        'candidates': clusters,
        'metadata': {'computer': localhost},
    }
    outputs, node = run_get_node(SelectClustersCalculation, **choose)
    assert node.is_finished_ok, node.exit_message
    choice = outputs['selection'].get_dict()
    assert len(choice['chosen']) == 2
    left_out = next(choice['decisions'][key] for key in clusters if key not in choice['chosen'])
    assert left_out['reason'] == 'over the cap of 2: others are farther apart'
    for key, decision in choice['decisions'].items():
        assert decision['gamma'] == pytest.approx(clusters[key].base.attributes.get('gamma_cluster'), rel=1e-3)
    # what is queued is left out, and so is what is near to it: a cluster without a label, or a set of labels
    labelled = clusters['c0'].get_atoms()
    labelled.info['REF_energy'] = -3.0
    for known in (ClusterData(clusters['c0'].get_atoms()), StructureSetData([labelled])):
        outputs, _ = run_get_node(SelectClustersCalculation, **choose, known={'k': known})
        again = outputs['selection'].get_dict()
        assert again['decisions']['c0']['reason'] == 'the queue holds it already'
        assert sorted(again['chosen']) == ['c1', 'c2']


def beside(inputs, potential):
    """Return inputs in which the ensemble gives a second opinion."""
    inputs['second_opinion'] = inputs.pop('ensemble')
    return inputs | {'potential': potential}


def test_a_second_opinion_stands_beside_gamma_though_its_job_was_lost(inputs, hot, shared, tmp_path):
    snapshots, potential = hot
    carve = beside(inputs(snapshots, centres_per_snapshot=3), potential)
    killed_once = f'if mkdir {tmp_path}/killed 2>/dev/null; then kill -9 $$; fi'
    carve['carve']['metadata']['options'] = {'prepend_text': killed_once}
    outputs, node = run_get_node(CarveWorkChain, **carve)
    assert node.is_finished_ok, node.exit_message
    assert [call.exit_status for call in sorted(node.called, key=lambda call: call.pk)] == [146, 0]
    assert len(outputs['clusters']) == 3
    reference = shared['ensemble']['reference'].get_reference()
    verdicts = []
    for cluster in outputs['clusters'].values():
        attributes = cluster.base.attributes
        latents = shared['latents_of']([cluster.get_atoms()])
        assert attributes.get('score') == pytest.approx(
            reference.per_atom_judge(latents.numbers, latents.latents)[0], rel=1e-3
        )
        (limit,) = reference.thresholds.of_atoms('aligned_variance', 0.99, np.array([13]))
        assert attributes.get('score_threshold') == pytest.approx(limit)
        verdicts.append('both' if attributes.get('score') > limit else 'gamma only')
        assert attributes.get('second_opinion') == verdicts[-1]
    # of these three atoms at 3000 K the ensemble finds only one worse than what it was trained on
    assert sorted(verdicts) == ['both', 'gamma only', 'gamma only']
    # both grades can be asked for
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'uuid': node.uuid}, tag='carve')
    disputed = {'attributes.second_opinion': 'gamma only', 'attributes.gamma_cluster': {'>': 1.0}}
    query.append(ClusterData, with_incoming='carve', filters=disputed)
    assert query.count() == 2
    # disagreement is shown in the decisions and in the report of the process
    messages = ' '.join(reports(node))
    assert '1 both, 2 gamma only' in messages
    for centre in outputs['carving']['centres']:
        disagree = centre['second_opinion'] == 'gamma only'
        assert (f'disagreement about atom {centre["centre"]} of step 300 (gamma only)' in messages) is disagree
        assert f'the ensemble {"disagrees" if disagree else "agrees"}' in centre['reason']
    # a cluster of the graph leads to all who graded it
    made = outputs['clusters']['c0'].creator.base.links.get_incoming().all_link_labels()
    assert {'snapshots', 'potential', 'second_opinion__reference', 'second_opinion__models__w4'} <= set(made)


def test_what_nobody_can_grade_is_refused_at_submission(inputs, graded, hot, shared):
    good = inputs(graded, **WIDE)
    for changes, message in (
        ({'ensemble': {'models': shared['ensemble']['models']}}, r'ensemble\.reference is missing'),
        (
            {'ensemble': shared['ensemble'] | {'models': {'w1': shared['ensemble']['models']['w1']}}},
            'the reference was fitted for the models w1, w2, w3, w4, not w1',
        ),
        ({'carve': good['carve'] | {'settings': Dict({'cutoff': 9.0})}}, 'must exceed twice the cutoff of 9'),
        ({'second_opinion': shared['ensemble']}, '`ensemble` grades the clusters already'),
        ({'potential': hot[1]}, 'give either `potential` or `ensemble`'),
        (
            {'ensemble': shared['ensemble'] | {'settings': Dict({'level': 0.98})}},
            r'level = 0\.98: there are thresholds for 0\.9, 0\.95, 0\.99',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run_get_node(CarveWorkChain, **{**good, **changes})
    blind = next(iter(graded))
    del blind.arrays['gamma']
    with pytest.raises(ValueError, match=r"snapshots have no 'gamma': take frames of an MD run"):
        run_get_node(CarveWorkChain, **(good | {'snapshots': StructureSetData([blind])}))
    del good['ensemble']
    with pytest.raises(ValueError, match='give either `potential` or `ensemble`, whichever graded the snapshots'):
        run_get_node(CarveWorkChain, **good)


def test_a_cutoff_smaller_than_that_of_the_models_is_found_out(inputs, graded):
    _, node = run_get_node(CarveWorkChain, **inputs(graded, **(WIDE | {'cutoff': 3.0})))
    assert node.exit_status == 402
    assert 'cutoff = 3, but the cutoff of the models is 4.2 angstrom' in node.exit_message


def test_clusters_do_not_wait_for_a_second_opinion_that_fails(inputs, hot):
    snapshots, potential = hot
    walker = beside(inputs(snapshots, centres_per_snapshot=1), potential)
    walker['second_opinion'] |= {'settings': Dict({'layers': 'last'})}  # the reference was fitted on all
    outputs, node = run_get_node(CarveWorkChain, **walker)
    assert node.is_finished_ok, node.exit_message
    assert outputs['clusters']['c0'].base.attributes.get('second_opinion', None) is None
    assert 'going on without a second opinion' in ' '.join(reports(node))
