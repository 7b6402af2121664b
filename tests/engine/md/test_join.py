from ase import Atoms

from aiida_oodal.engine.md.segments import join_frames, join_results


def frames(*steps):
    return [Atoms('Al', info={'step': step}) for step in steps]


def result(**values):
    return {
        'outcome': 'KILLED',
        'message': 'It ended.',
        'trigger_step': None,
        'select_step': None,
        'max_gamma': None,
        **values,
    }


def test_a_later_run_replaces_from_its_first_step_on():
    # the second run went on from step 20, though the first had come to 40; the third began again at 0
    joined = join_frames([frames(0, 10, 20, 30, 40), frames(20, 30)], [0, 20])
    assert [atoms.info['step'] for atoms in joined] == [0, 10, 20, 30]
    joined = join_frames([frames(0, 10), frames(10, 20), frames(0, 10)], [0, 10, 0])
    assert [atoms.info['step'] for atoms in joined] == [0, 10]


def test_the_last_run_says_how_it_ended_and_the_first_sight_counts():
    runs = [
        result(select_step=30, max_gamma=9.0, trigger_step=40),
        result(outcome='UNCERTAIN', select_step=50, trigger_step=60, max_gamma=6.0),
    ]
    joined = join_results(runs, [0, 40], max_gamma=5.5)
    # what the first run did from step 40 on was done again
    message = (
        '2 runs that went on from one another. Over all of them the largest gamma was 6. It first passed gamma_select '
        'at step 30. The last one, from step 40 on: It ended.'
    )
    assert joined == result(outcome='UNCERTAIN', message=message, select_step=30, trigger_step=60, max_gamma=6.0)
    assert join_results(runs[:1], [0], max_gamma=9.0) == runs[0]
    assert join_results([result(), result()], [0, 10], max_gamma=None)['max_gamma'] is None
