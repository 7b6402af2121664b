import runpy
import uuid
from pathlib import Path

import numpy as np
import pytest
from aiida.cmdline.utils.common import get_workchain_report
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import Bool, CalcJobNode, Computer, Dict, QueryBuilder, load_computer
from ase import Atoms

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.data import LatentsData, MaceModelData, OodScoresData, StructureSetData
from aiida_oodal.workchains.resuming import MOST_FRUITLESS
from aiida_oodal.workchains.screen import ScreenWorkChain
from aiida_oodal.workchains.screen_inputs import validate_screen

DATA = Path(__file__).parents[1] / 'data' / 'mace_alcu'
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
    # One job fits, one scores all sets and chooses: nothing long is left for a daemon worker.
    assert {'fit_T1', 'score_T1', 'take_hot'} <= calls
    jobs = {call.process_label for call in screening.called if isinstance(call, CalcJobNode)}
    assert jobs == {'LatentsCalculation', 'FitReferenceCalculation', 'ScoreSetsCalculation'}
    reference = screening.outputs.references['T1'].get_reference()
    assert reference.n_structures == screening.inputs.ensembles['T1']['reference'].n_structures


def test_one_query_leads_from_scores_to_the_models_that_were_asked(screening):
    query = QueryBuilder()
    query.append(OodScoresData, filters={'uuid': screening.outputs.scores['hot']['T1'].uuid}, tag='scores')
    query.append(LatentsData, with_descendants='scores', tag='latents')
    query.append(MaceModelData, with_descendants='latents', project='uuid')
    models = {uuid for (uuid,) in query.all()}
    assert models == {node.uuid for node in screening.inputs.ensembles['T1']['models'].values()}


def latents_of(screening, name):
    """Return the latents of a set of a screening, by any key."""
    links = screening.outputs.scores[name]['T1'].creator.base.links.get_incoming(node_class=LatentsData).all()
    prefix = f'sets__{name}__'
    return {link.link_label.removeprefix(prefix): link.node for link in links if link.link_label.startswith(prefix)}


def judge():
    """Return what the jobs need that fit and score."""
    return {'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}}


def test_a_fitted_reference_and_latents_that_are_there_are_used_again(screening):
    from aiida.engine import run_get_node

    latents = latents_of(screening, 'hot')
    inputs = {
        'ensembles': {'T1': {'reference': screening.outputs.references['T1']}},
        'targets': {'again': {'structures': screening.inputs.targets['hot']['structures'], 'latents': {'T1': latents}}},
    }
    outputs, node = run_get_node(ScreenWorkChain, **inputs, candidates=Dict({'n': 2}), judge=judge())
    assert node.is_finished_ok, node.exit_message
    before = screening.outputs.scores['hot']['T1'].get_scores()
    after = outputs['scores']['again']['T1'].get_scores()
    for metric, kinds in before.per_structure.items():
        for kind in kinds:
            np.testing.assert_array_equal(after.of(metric, kind), before.of(metric, kind))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'ensembles': {}}, 'give at least one ensemble'),
        ({'targets': {}}, 'give at least one target'),
        ({'against': 'T9'}, "against = 'T9' is no ensemble; there is T1"),
        ({'candidates': {'method': 'kmeans'}}, 'say which structures to take'),
        ({'reference': {'metrics': ['entropy']}}, 'metrics'),
        ({'embed': None}, 'give `embed.code`, the engine'),
        ({'candidates': {'n': 3, 'metric': 'force_std'}}, 'force_std, which needs forces: set `forces`'),
        (
            {'candidates': {'n': 3, 'metric': 'knn'}, 'reference': {'metrics': ['gmm']}},
            'by knn, but the reference is fitted for gmm',
        ),
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
    # The engine may need less than the second after which the monitor looks; what it printed stays to be seen.
    deadly.set_append_text('sleep 4')
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
            'monitors': {'progress': Dict({'entry_point': 'oodal.progress', 'minimum_poll_interval': 1})},
        },
    }
    outputs, node = run_get_node(ScreenWorkChain, **inputs)
    assert node.is_finished_ok, node.exit_message
    jobs = sorted((call for call in node.called if call.process_label == 'LatentsCalculation'), key=lambda job: job.pk)
    assert [job.exit_status for job in jobs] == [400, 0]
    ended = jobs[0].outputs.results['next_structure']
    assert 0 < ended == jobs[1].inputs.start.value
    scores = outputs['scores']['again']['T1'].get_scores()
    np.testing.assert_array_equal(scores.structure_index, np.arange(given['reference'].n_structures))
    report = get_workchain_report(node, levelname='REPORT')
    assert f'again under T1: ended at structure {ended} of {given["reference"].n_structures}, going on' in report
    # Which of the lines of a job was the last one when the monitor looked is a matter of speed.
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
    assert len(codes) == MOST_FRUITLESS + 1
    assert codes[-1].status == 401
    assert 'hot under T1 could not be turned into latents' in codes[-1].message
    assert 'ended from outside' in codes[-1].message


def alloys(screening):
    """Return the structures of the reference set that have both elements."""
    return [atoms for atoms in screening.inputs.ensembles['T1']['reference'] if len(set(atoms.numbers)) == 2]


def test_too_small_a_reference_set_is_explained(screening):
    from aiida.engine import run_get_node

    models = screening.inputs.ensembles['T1']['models']
    # As many atoms as latents of each: at submission nobody knows how many latents there are.
    few = StructureSetData(alloys(screening)[:2])
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
    assert [job.exit_status for job in node.called] == [146] * (MOST_FRUITLESS + 1)


def test_what_the_machine_lost_is_fitted_and_scored_again(screening, tmp_path):
    from aiida.engine import run_get_node

    given = screening.inputs.ensembles['T1']
    fitted = screening.outputs.references['T1'].creator.base.links.get_incoming(node_class=LatentsData).all()
    ensemble = {name: given[name] for name in ('reference', 'heldout')}
    for name in ('reference', 'heldout'):
        own = {link.link_label: link.node for link in fitted if link.link_label.startswith(f'{name}__')}
        ensemble[f'{name}_latents'] = {label.removeprefix(f'{name}__'): node for label, node in own.items()}
    # The first job of each command is killed before its program begins.
    deadly = f'mkdir {tmp_path}/$(grep -c fit-reference _aiidasubmit.sh) && kill -9 $$'
    inputs = judge()
    inputs['metadata']['options'] = {'prepend_text': deadly}
    hot = {'structures': screening.inputs.targets['hot']['structures'], 'latents': {'T1': latents_of(screening, 'hot')}}
    outputs, node = run_get_node(ScreenWorkChain, ensembles={'T1': ensemble}, targets={'hot': hot}, judge=inputs)
    assert node.is_finished_ok, node.exit_message
    jobs = [call for call in sorted(node.called, key=lambda call: call.pk) if isinstance(call, CalcJobNode)]
    assert [(job.process_label, job.exit_status) for job in jobs] == [
        ('FitReferenceCalculation', 146),
        ('FitReferenceCalculation', 0),
        ('ScoreSetsCalculation', 146),
        ('ScoreSetsCalculation', 0),
    ]
    before = screening.outputs.scores['hot']['T1'].get_scores()
    np.testing.assert_allclose(outputs['scores']['hot']['T1'].get_scores().of('knn'), before.of('knn'), rtol=1e-9)


def isolated(symbol):
    return Atoms(symbol, cell=[15.0] * 3, pbc=True, info={'config_type': 'IsolatedAtom'})


def test_one_model_screens_and_isolated_atoms_that_are_known_are_no_candidates(screening):
    from aiida.engine import run_get_node

    given = screening.inputs.ensembles['T1']
    known = [*given['reference'], isolated('Al'), isolated('Cu')]
    hot = [isolated('Al'), *screening.inputs.targets['hot']['structures'], given['reference'].get_atoms(7)]
    inputs = {
        'ensembles': {
            'one': {
                'models': {'w1': given['models']['w1']},
                'reference': StructureSetData(known),
                'heldout': given['heldout'],
            }
        },
        'targets': {'hot': {'structures': StructureSetData(hot)}},
        'embed': {'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}},
    }
    outputs, node = run_get_node(ScreenWorkChain, **inputs)
    assert node.is_finished_ok, node.exit_message
    reference = outputs['references']['one']
    assert reference.base.attributes.get('judge') == 'mahalanobis'
    assert reference.base.attributes.get('model_sha256') == {'w1': given['models']['w1'].sha256}
    assert reference.base.attributes.get('cutoff') == 4.2
    notes = reference.base.attributes.get('notes')
    assert any('2 isolated atoms of the reference set (Al, Cu) are left out of the fit' in note for note in notes)
    assert any('there is one model' in note for note in notes)
    scores = outputs['scores']['hot']['one'].get_scores()
    assert scores.structure_index.tolist() == list(range(1, 14))
    assert 'aligned_variance' not in scores.metrics
    taken = [entry['structure'] for entry in outputs['decisions']['hot'].get_dict()['taken']]
    assert sorted(taken) == list(range(1, 13))
    report = get_workchain_report(node, levelname='REPORT')
    assert 'hot against one: 1 isolated atoms are in the reference set and were not scored' in report
    assert 'hot against one: 1 structures are in the reference set or the held-out set too' in report


@pytest.fixture
def parts(screening):
    """Return inputs of a screening that is well but for what a test changes."""
    given = screening.inputs.ensembles['T1']
    return {
        'ensembles': {'T1': {'models': dict(given['models']), 'reference': screening.outputs.references['T1']}},
        'targets': {
            'hot': {
                'structures': screening.inputs.targets['hot']['structures'],
                'latents': {'T1': latents_of(screening, 'hot')},
            }
        },
        'embed': {'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}},
    }


def test_parts_that_belong_together_are_accepted(parts):
    assert validate_screen(parts, None) is None


def test_latents_of_other_structures_are_refused(parts, screening):
    moved = [atoms.copy() for atoms in screening.inputs.targets['hot']['structures']]
    moved[2].positions[0] += 0.1
    target = parts['targets']['hot']
    target['structures'] = StructureSetData(moved)
    problem = validate_screen(parts, None)
    assert 'the latents of hot (w1) are of other structures: positions or cell of structure 2 differ' in problem
    assert validate_screen(parts | {'insist': Bool(True)}, None) is None
    target['structures'] = StructureSetData(moved[:5])
    assert 'the latents of hot are of structure 11, but the set has 5' in validate_screen(parts, None)
    moved[4].numbers[3] = 47
    target['structures'] = StructureSetData(moved)
    assert 'of other structures: the elements of structure 4 differ' in validate_screen(parts, None)
    target['structures'] = StructureSetData([*moved[:4], moved[4][:-1], *moved[5:]])
    assert 'of other structures: structure 4 has another size' in validate_screen(parts | {'insist': Bool(True)}, None)


def test_models_that_a_reference_was_not_fitted_for_are_refused(parts, screening):
    models = parts['ensembles']['T1']['models']
    models['w1'], models['w2'] = models['w2'], models['w1']
    problem = validate_screen(parts, None)
    assert problem.startswith("ensemble 'T1': the reference and models are not of the same model w1: SHA-256 ")
    assert 'set `insist` to true' in problem
    assert validate_screen(parts | {'insist': Bool(True)}, None) is None
    reference = screening.outputs.references['T1']
    assert 'SHA-256' in reference.check_models(models, given_as='models')
    assert reference.check_models(models, insist=True) is None
    assert 'fitted for the models w1, w2, w3, w4, not w1' in reference.check_models({'w1': models['w2']})


def test_latents_of_other_models_are_refused(parts, screening):
    # The latents of w1 under the name of another ensemble, as a file of embeddings brings them.
    target = parts['targets']['hot']['latents']['T1']
    key = next(key for key, node in target.items() if node.model_label == 'w1')
    other = target[key].clone()
    other.base.attributes.set('model_sha256', 'f' * 64)
    target[key] = other
    problem = validate_screen(parts, None)
    assert 'the reference and the latents of hot are not of the same model w1: SHA-256' in problem


def test_one_file_twice_is_no_ensemble(parts):
    models = parts['ensembles']['T1']['models']
    models['w4'] = MaceModelData(DATA / 'w1.model')
    assert 'the models w1 and w4 are the same file' in validate_screen(parts | {'insist': Bool(True)}, None)


def test_sets_that_are_one_another_are_refused(parts, screening):
    given = screening.inputs.ensembles['T1']
    ensemble = parts['ensembles']['T1']
    ensemble |= {'reference': given['reference'], 'heldout': given['reference']}
    problem = validate_screen(parts, None)
    assert 'every held-out structure is in the reference set too' in problem
    assert validate_screen(parts | {'insist': Bool(True)}, None) is None
    ensemble['heldout'] = StructureSetData([*given['heldout'], given['reference'].get_atoms(0)])
    assert validate_screen(parts, None) is None
    silver = given['heldout'].get_atoms(0)
    silver.numbers[0] = 47
    ensemble['heldout'] = StructureSetData([silver])
    assert 'its held-out set contains Ag, which the reference set lacks (Al, Cu)' in validate_screen(parts, None)
    ensemble |= {'reference': StructureSetData([*given['reference'], silver])}
    assert 'its reference set has too few atoms of Ag (1): 10 of each element' in validate_screen(parts, None)


def test_a_model_of_several_heads_is_refused_before_a_job_starts(parts, tmp_path):
    make = runpy.run_path(str(Path(__file__).parents[1] / 'engine' / 'conftest.py'))['save_untrained']
    make(tmp_path / 'two.model', '4x0e', 'ScaleShiftMACE', ('dft', 'xtb'))
    parts['ensembles']['T1']['models'] = {'w1': MaceModelData(tmp_path / 'two.model')}
    problem = validate_screen(parts, None)
    assert 'w1 has the heads dft, xtb, and none of them is asked for: set `head` to the one whose energies' in problem
    parts['embed']['settings'] = Dict({'head': 'dft'})
    assert 'heads' not in (validate_screen(parts, None) or '')
