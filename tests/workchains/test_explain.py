"""What a campaign says of walkers that left nothing to choose from."""

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState

from aiida_oodal.workchains.explore import explain_failed, explain_no_candidates
from aiida_oodal.workchains.trust.signs import explain_going_on


@pytest.fixture
def walker(aiida_profile):
    def make(status=0, message=None, **results):
        node = orm.WorkChainNode()
        node.set_process_state(ProcessState.FINISHED)
        node.set_exit_status(status)
        if message is not None:
            node.set_exit_message(message)
        node.store()
        if results:
            made = orm.Dict(results)
            made.store()
            made.base.links.add_incoming(node, LinkType.RETURN, 'results')
        return node

    return make


def test_one_completed_and_one_failed_walker(walker):
    message = 'the MD run of this walker failed: LAMMPS stopped at step 40 with an error: "Bad".'
    walkers = {'good': walker(outcome='COMPLETED', last_step=100), 'bad': walker(400, message)}
    said = explain_no_candidates(walkers)
    assert said == f"walker 'bad' failed: {message}"
    assert 'gamma' not in said
    two = explain_failed(walkers | {'worse': walker(400, 'no')})
    assert two.startswith("walker 'bad' failed (2 of 3 walkers failed): the MD run")
    assert explain_failed({'good': walkers['good']}) == ''


def test_a_walker_that_began_above_the_ceiling(walker):
    said = explain_no_candidates(
        {
            'good': walker(outcome='COMPLETED', last_step=100),
            'wild': walker(outcome='EXPLODED', trigger_step=0, last_valid_step=None),
        }
    )
    assert said.startswith("walker 'wild' ended at the structure that it began with, above gamma_ceiling")
    assert 'initial_structures' in said
    assert 'restart' not in said
    assert 'raise gamma_ceiling' not in said


def test_a_walker_that_halted_later(walker):
    said = explain_no_candidates({'hot': walker(outcome='EXPLODED', trigger_step=70, last_valid_step=60)})
    assert 'Evaluate gamma more often' in said


def test_how_to_go_on_names_what_there_is():
    assert 'initial_' not in explain_going_on([], 7).replace('initial_labels', '')
    assert '`initial_ensemble=campaign.outputs.learned.ensemble`' in explain_going_on(['ensemble'], 7)
