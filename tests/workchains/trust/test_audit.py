"""The audit of walkers: their last frames are labelled, whole or as clusters, and compared with what drove them."""

from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, Str
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData
from aiida_oodal.operations.campaign.status import read_status
from aiida_oodal.queue import find_entries
from aiida_oodal.report import read_history, write_report
from aiida_oodal.report.campaign.left import read_left
from aiida_oodal.report.campaign.page import summarise
from aiida_oodal.report.campaign.why import explain
from aiida_oodal.workchains.label.ase import AseLabelWorkChain
from aiida_oodal.workchains.md_base import MdBaseWorkChain
from aiida_oodal.workchains.stages import unpack
from aiida_oodal.workchains.trust.audit import AuditWorkChain, as_audited

require('lammps', 'pyace')

ACE = Path(__file__).parents[2] / 'data' / 'ace-al'
CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
CARVE = {'radius': 3.0, 'buffer': 3.0}


@pytest.fixture(scope='module')
def potential(localhost):
    return AcePotentialData(ACE / 'Al.yaml', ACE / 'Al.asi').store()


@pytest.fixture(scope='module')
def walked(localhost, potential):
    """A walker of 60 steps, whose gamma passes gamma_select on its way."""
    start = StructureSetData([bulk('Al', a=4.05, cubic=True).repeat(2)]).store()
    settings = {'steps': 60, 'temperature': 600, 'gamma_every': 10, 'sample_every': 10}
    md = {'code': get_engine_code(), 'structure': start, 'settings': Dict(settings), 'potential': potential}
    limits = Dict({'gamma_select': 1e-3, 'gamma_break': 1e3, 'gamma_ceiling': 1e4})
    md |= {'metadata': {'computer': localhost}, 'thresholds': limits}
    _, node = run_get_node(MdBaseWorkChain, md=md)
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.results['outcome'] == 'COMPLETED'
    return as_audited(node, start)


@pytest.fixture
def audit(localhost, potential, walked):
    def run(calculator=CALCULATOR, **settings):
        labeller = AseLabelWorkChain.get_builder_from_protocol(
            code=get_engine_code(), computer=localhost, overrides={'calculator': calculator}
        )
        place = {'code': get_engine_code(), 'metadata': {'computer': localhost}}
        outputs, node = run_get_node(
            AuditWorkChain,
            walkers={'warm': walked},
            potential=potential,
            label={'workflow': Str('oodal.label.ase'), 'inputs': unpack(labeller)},
            carve={'settings': Dict(CARVE), **place},
            judge=place,
            settings=Dict(settings),
        )
        assert node.is_finished_ok, node.exit_message
        return outputs, node

    return run


def test_whole_frames_are_labelled_and_compared_with_what_drove_them(audit, walked):
    outputs, _ = audit(frames=3, tolerance=50.0)
    verdict = outputs['results']['walkers']['warm']
    assert verdict['passed']
    assert [frame['step'] for frame in verdict['frames']][-1] == 60
    assert len(verdict['frames']) == 3
    for frame, atoms in zip(verdict['frames'], outputs['judged'], strict=True):
        emt = atoms.copy()
        emt.calc = EMT(asap_cutoff=False)
        np.testing.assert_allclose(emt.get_forces(), atoms.arrays['REF_forces'], atol=1e-8)
        # 3 components: the mean square of the length of the difference is three times that of a component.
        rmse = 1000 * np.sqrt(np.mean(atoms.arrays['force_error'] ** 2) / 3)
        assert frame['force_rmse'] == pytest.approx(rmse)
        assert frame['max_gamma'] == pytest.approx(atoms.arrays['gamma'].max())
    final = outputs['judged'].get_atoms(2)
    np.testing.assert_allclose(final.positions, walked['final'].get_atoms(0).positions)


def test_a_potential_that_is_wrong_at_the_end_fails(audit):
    verdict = audit(tolerance=1e-6)[0]['results']['walkers']['warm']
    assert not verdict['passed']
    assert '(tolerance 0.001), too large in 2 of 2' in verdict['reasons'][-1]


def test_of_large_frames_clusters_are_cut_and_labelled(audit):
    outputs, node = audit(whole_atoms=31, centres=2, tolerance=50.0)
    verdict = outputs['results']['walkers']['warm']
    assert verdict['passed']
    assert [(frame['walker'], frame['step']) for frame in verdict['frames']] == [('warm', 60)] * 2
    assert all(0 < frame['n_core_atoms'] < frame['n_atoms'] for frame in verdict['frames'])
    entries = {entry.key: entry for entry in find_entries(campaign=node.uuid)}
    assert {frame['key'] for frame in verdict['frames']} == set(entries)
    cluster = next(iter(entries.values())).load_node()
    assert isinstance(cluster, ClusterData)
    assert any('largest force on a core atom' in text for part in explain(cluster) for text in part.sentences)


def test_without_a_label_no_walker_is_believed(audit):
    outputs, _ = audit(calculator={'calculator': 'oracle.ase:Oracle'}, tolerance=50.0)
    verdict = outputs['results']['walkers']['warm']
    assert not verdict['passed']
    assert verdict['reasons'][0].startswith('none of its frames has a label: ')
    assert 'oracle' in verdict['reasons'][0]
    assert 'labels' not in outputs


@pytest.fixture
def campaign(build_toy_campaign):
    """Return a function that runs a campaign whose walker runs to its end under a potential that never changes."""

    def run(**settings):
        builder = build_toy_campaign(
            {'cold': {'settings': {'temperature': 100, 'steps': 40, 'ensemble': 'nvt'}}},
            {
                'max_rounds': 2,
                'audit': settings,
                'thresholds': {'gamma_select': 1e3, 'gamma_break': 2e3, 'gamma_ceiling': 1e4},
            },
        )
        outputs, node = run_get_node(builder)
        return outputs, node, {link.link_label: link.node for link in node.base.links.get_outgoing().all()}

    return run


def test_a_walker_that_passes_ends_the_campaign(campaign):
    outputs, node, links = campaign(tolerance=50.0)
    assert node.is_finished_ok, node.exit_message
    assert 'train_1' not in links
    assert outputs['labels']['audit_1'].n_structures == 1
    history = read_history(node)
    assert history.healed
    assert 'where they ended the force RMSE of a frame is at most' in summarise(history)


def test_a_walker_that_fails_is_learned_and_tried_again(campaign, tmp_path):
    outputs, node, links = campaign(tolerance=1e-6)
    assert node.exit_status == 501, node.exit_message
    assert not {'select_1', 'label_1'} & set(links)
    assert links['train_1'].inputs.labels['audit_1'].uuid == outputs['labels']['audit_1'].uuid
    assert links['explore_2_cold'].is_finished_ok
    history = read_history(node)
    assert not history.healed
    assert not history.rounds[0].halted
    assert set(read_left(node).labels) == {'start', 'audit_1', 'audit_2'}
    assert read_status(node).n_labels == 3
    assert 'at step 40' in write_report(node, tmp_path / 'report.html').read_text()


def test_when_the_budget_of_the_audit_is_spent_the_campaign_says_so(campaign):
    outputs, node, _ = campaign(tolerance=1e-6, frames=1, max_labels=1)
    assert node.exit_status == 404
    assert 'the budget of the audit is spent (1 of 1 labels)' in node.exit_message
    assert f'`aiida-oodal campaign extend {node.pk}`' in node.exit_message
    assert 'potential' in outputs


def test_without_frames_walkers_are_believed(campaign):
    _, node, links = campaign(frames=0)
    assert node.is_finished_ok, node.exit_message
    assert 'audit_1' not in links
