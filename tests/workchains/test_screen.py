import uuid

import numpy as np
import pytest
from aiida.cmdline.utils.common import get_workchain_report
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import CalcJobNode, Computer, Dict, QueryBuilder, load_computer

from aiida_oodal.calculations.engine_code import get_engine_code
from aiida_oodal.data import LatentsData, MaceModelData, OodScoresData, StructureSetData
from aiida_oodal.workchains.screen import ScreenWorkChain

pytestmark = pytest.mark.slow


def test_hot_structures_are_found_and_the_farthest_become_candidates(screening):
    assert screening.is_finished_ok, screening.exit_message
    scores = screening.outputs.scores['hot']['T1'].get_scores()
    heldout = screening.outputs.scores['heldout']['T1'].get_scores()
    assert scores.of('aligned_variance').min() > heldout.of('aligned_variance').max()
    assert {'force_std', 'predicted_error', 'energy_std'} <= set(scores.metrics)
    candidates = screening.outputs.candidates['hot']
    assert candidates.n_structures == 3
    decisions = screening.outputs.decisions['hot'].get_dict()
    assert [entry['structure'] for entry in decisions['taken']] == [atoms.info['set_index'] for atoms in candidates]
    target = screening.inputs.targets['hot']['structures'].get_set()
    for atoms in candidates:
        np.testing.assert_array_equal(atoms.positions, target[atoms.info['set_index']].positions)
        assert 'REF_forces' in atoms.arrays


def test_the_reference_set_was_sharded_and_joined(screening):
    calls = {link.link_label for link in screening.base.links.get_outgoing().all()}
    assert {'embed_T1_reference_0', 'embed_T1_reference_24', 'embed_T1_heldout_0', 'embed_T1_hot_0'} <= calls
    reference = screening.outputs.references['T1'].get_reference()
    assert reference.n_structures == screening.inputs.ensembles['T1']['reference'].n_structures


def test_one_query_leads_from_scores_to_the_models_that_were_asked(screening):
    query = QueryBuilder()
    query.append(OodScoresData, filters={'uuid': screening.outputs.scores['hot']['T1'].uuid}, tag='scores')
    query.append(LatentsData, with_descendants='scores', tag='latents')
    query.append(MaceModelData, with_descendants='latents', project='uuid')
    models = {uuid for (uuid,) in query.all()}
    assert models == {node.uuid for node in screening.inputs.ensembles['T1']['models'].values()}


def test_a_fitted_reference_and_latents_that_are_there_are_used_again(screening):
    from aiida.engine import run_get_node

    latents = {
        link.link_label: link.node
        for link in screening.outputs.scores['hot']['T1'].creator.base.links.get_incoming(node_class=LatentsData).all()
    }
    inputs = {
        'ensembles': {'T1': {'reference': screening.outputs.references['T1']}},
        'targets': {'again': {'structures': screening.inputs.targets['hot']['structures'], 'latents': {'T1': latents}}},
    }
    outputs, node = run_get_node(ScreenWorkChain, **inputs, candidates=Dict({'n': 2}))
    assert node.is_finished_ok, node.exit_message
    before = screening.outputs.scores['hot']['T1'].get_scores()
    after = outputs['scores']['again']['T1'].get_scores()
    for metric in before.metrics:
        np.testing.assert_array_equal(after.of(metric), before.of(metric))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'ensembles': {}}, 'give at least one ensemble'),
        ({'targets': {}}, 'give at least one target'),
        ({'against': 'T9'}, "against = 'T9' is no ensemble; there is T1"),
        ({'candidates': {'method': 'kmeans'}}, 'say which structures to take'),
        ({'reference': {'metrics': ['entropy']}}, 'metrics'),
        ({'embed': None}, 'give `embed.code`, the engine'),
    ],
)
def test_what_cannot_end_is_refused_at_submission(screening, change, message):
    from aiida.engine import run

    ensemble = screening.inputs.ensembles['T1']
    inputs = {
        'ensembles': {'T1': {'models': ensemble['models'], 'reference': ensemble['reference']}},
        'targets': {'hot': {'structures': screening.inputs.targets['hot']['structures']}},
        'embed': {'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}},
    }
    with pytest.raises(ValueError, match=message):
        run(ScreenWorkChain, **{name: value for name, value in (inputs | change).items() if value is not None})


#: Kills the engine with SIGKILL once, when the list of finished structures has grown to half a dozen.
KILL_ONCE = """
if mkdir {marker}; then
  (until [ "$(stat -c %s structure_index.npy 2>/dev/null || echo 0)" -gt 176 ]; do sleep 0.01; done
   pkill -9 -P $$ python) &
fi
"""


def test_a_job_that_is_killed_goes_on_where_it_ended(screening, localhost, tmp_path):
    from aiida.engine import run_get_node

    deadly = Computer(
        label=f'deadly-{uuid.uuid4().hex[:8]}',
        hostname='localhost',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(tmp_path / 'jobs'),
    )
    deadly.set_prepend_text(localhost.get_prepend_text() + KILL_ONCE.format(marker=tmp_path / 'killed'))
    deadly.store()
    deadly.configure(safe_interval=0)
    deadly.set_minimum_job_poll_interval(0.5)
    deadly.set_default_mpiprocs_per_machine(1)
    given = screening.inputs.ensembles['T1']
    inputs = {
        'ensembles': {'T1': {'models': dict(given['models']), 'reference': screening.outputs.references['T1']}},
        'targets': {'again': {'structures': given['reference']}},
        'embed': {
            'code': get_engine_code(),
            'settings': Dict({'batch_size': 1}),
            'metadata': {'computer': deadly},
            # Once a second, to see it in jobs of seconds.
            'monitors': {'progress': Dict({'entry_point': 'oodal.progress', 'minimum_poll_interval': 1})},
        },
    }
    outputs, node = run_get_node(ScreenWorkChain, **inputs)
    assert node.is_finished_ok, node.exit_message
    jobs = sorted((call for call in node.called if isinstance(call, CalcJobNode)), key=lambda job: job.pk)
    assert [job.exit_status for job in jobs] == [400, 0]
    ended = jobs[0].outputs.results['next_structure']
    assert 0 < ended == jobs[1].inputs.start.value
    scores = outputs['scores']['again']['T1'].get_scores()
    np.testing.assert_array_equal(scores.structure_index, np.arange(given['reference'].n_structures))
    report = get_workchain_report(node, levelname='REPORT')
    assert f'again under T1: ended at structure {ended} of {given["reference"].n_structures}, going on' in report
    # Which of its lines were the last ones when the monitor looked is a matter of speed.
    started = {job.pk: job.inputs.start.value for job in jobs}
    assert any(f'embed_T1_again_{start}<{pk}>: ' in report for pk, start in started.items())


def waiting_screen(screening):
    """Return a screening that has sent its jobs and waits for them."""
    ensemble = screening.inputs.ensembles['T1']
    process = instantiate_process(
        get_manager().get_runner(),
        ScreenWorkChain,
        ensembles={'T1': {'models': dict(ensemble['models']), 'reference': screening.outputs.references['T1']}},
        targets={'hot': {'structures': screening.inputs.targets['hot']['structures']}},
        embed={'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}},
    )
    process.setup()
    return process


def ended_job(exit_status, next_structure):
    """Return the node of a job that was ended from outside before all structures were done."""
    job = CalcJobNode(computer=load_computer('localhost'), process_type='aiida.calculations:oodal.latents')
    job.set_process_state(ProcessState.FINISHED)
    job.set_exit_status(exit_status)
    job.set_exit_message('ended from outside')
    job.store()
    results = Dict({'next_structure': next_structure, 'n_structures': next_structure, 'failures': []})
    results.base.links.add_incoming(job, LinkType.CREATE, 'results')
    results.store()
    return job


@pytest.mark.parametrize('exit_status', [110, 120, 140, 400])
def test_whatever_ended_a_job_its_rest_is_sent_again(screening, exit_status):
    process = waiting_screen(screening)
    ((ensemble, name, start, stop),) = process.ctx.todo
    assert (ensemble, name, start) == ('T1', 'hot', 0)
    process.ctx.sent, process.ctx.todo = process.ctx.todo, []
    process.ctx.embed_T1_hot_0 = ended_job(exit_status, 5)
    assert process.inspect_embed() is None
    assert process.ctx.todo == [['T1', 'hot', 5, stop]]


def test_a_job_that_never_gets_further_ends_the_screening(screening):
    process = waiting_screen(screening)
    sent = process.ctx.todo
    codes = []
    while not codes or codes[-1] is None:
        process.ctx.sent, process.ctx.todo = sent, []
        process.ctx.embed_T1_hot_0 = ended_job(120, 0)
        codes.append(process.inspect_embed())
    assert len(codes) == 3
    assert codes[-1].status == 401
    assert 'hot under T1 could not be turned into latents' in codes[-1].message
    assert 'ended from outside' in codes[-1].message


def test_too_small_a_reference_set_is_explained(screening):
    from aiida.engine import run_get_node

    models = screening.inputs.ensembles['T1']['models']
    few = StructureSetData(list(screening.inputs.ensembles['T1']['reference'])[:2])
    inputs = {
        'ensembles': {'T1': {'models': models, 'reference': few}},
        'targets': {'few': {'structures': few}},
        'embed': {'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}},
    }
    node = run_get_node(ScreenWorkChain, **inputs)[1]
    assert node.exit_status == 402
    assert 'fitting the reference of T1 failed' in node.exit_message


def test_a_job_that_is_lost_before_it_begins_is_sent_again_but_not_for_ever(screening):
    from aiida.engine import run_get_node

    ensemble = screening.inputs.ensembles['T1']
    inputs = {
        'ensembles': {'T1': {'models': dict(ensemble['models']), 'reference': screening.outputs.references['T1']}},
        'targets': {'lost': {'structures': screening.inputs.targets['hot']['structures']}},
        'embed': {
            'code': get_engine_code(),
            'metadata': {'computer': load_computer('localhost'), 'options': {'prepend_text': 'kill -9 $$'}},
        },
    }
    node = run_get_node(ScreenWorkChain, **inputs)[1]
    assert node.exit_status == 401
    assert 'lost under T1 could not be turned into latents' in node.exit_message
    assert 'ended from outside before its program began' in node.exit_message
    assert [job.exit_status for job in node.called] == [146, 146, 146]
