"""A campaign whose clusters an ensemble of MACE models looks at, too."""

import runpy
from pathlib import Path

import pytest
from aiida.engine import run_get_node
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.data import AcePotentialData, ClusterData, MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.report import write_report
from aiida_oodal.workchains.campaign import CampaignWorkChain

require('mace')

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'
CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}


def make_labels():
    """Return what a potential that comes from elsewhere was trained on, as its user has to say."""
    return StructureSetData(label_structure(atoms, EMT()) for atoms in strained_crystals(count=4, seed=1))


@pytest.fixture
def builder(localhost):
    tiny = runpy.run_path(str(Path(__file__).with_name('tiny_ensemble.py')))
    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)])
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=localhost,
        protocol='quick',
        initial_potential=AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi'),
        initial_labels=make_labels(),
        walkers={'hot': {'structure': crystal, 'settings': {'steps': 1000, 'temperature': 4000}}},
        overrides={
            'label': {'calculator': CALCULATOR},
            'train': {'number_of_functions': 30, 'max_functions': 30},
            'max_rounds': 1,
        },
        second_opinion={
            'models': {label: MaceModelData(path) for label, path in tiny['MODELS'].items()},
            'reference': OodReferenceData(tiny['fit']()),
        },
    )


@pytest.mark.slow
def test_every_cluster_in_the_queue_has_both_grades(builder, tmp_path):
    _, node = run_get_node(builder)
    assert node.exit_status == CampaignWorkChain.exit_codes.ERROR_BUDGET_SPENT.status, node.exit_message
    entries = find_entries(QueueStatus.LABELLED, campaign=node.uuid)
    assert entries
    clusters = [entry.load_node() for entry in entries]
    for cluster in clusters:
        attributes = cluster.base.attributes
        assert attributes.get('gamma_cluster') > 2.0
        above = attributes.get('score') > attributes.get('score_threshold')
        assert attributes.get('second_opinion') == ('both' if above else 'gamma only')
        assert attributes.get('buffer_above_break') is not None
    page = write_report(node, tmp_path / 'report.html').read_text()
    assert '<th>second opinion</th>' in page
    for cluster in clusters:
        assert f'<td>{cluster.base.attributes.get("second_opinion")}</td>' in page
    (selection,) = [call for call in node.called if call.process_label == 'SelectClustersCalculation']
    for key, decision in selection.outputs.selection['decisions'].items():
        candidate = selection.base.links.get_incoming(ClusterData).get_node_by_label(f'candidates__{key}')
        assert decision['second_opinion'] == candidate.base.attributes.get('second_opinion')


def test_an_ensemble_without_its_reference_is_refused(builder):
    builder.second_opinion = {'models': builder.second_opinion['models']}
    with pytest.raises(ValueError, match=r'second_opinion: ensemble\.reference is missing'):
        run_get_node(builder)
