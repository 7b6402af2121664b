"""Which frames of a walker are audited, and when its end is believed."""

import numpy as np
import pytest
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.trust.audit import AuditSettings, choose_frames, explain_verdicts, judge_walkers


def frame(step, gamma):
    atoms = bulk('Al', cubic=True)
    atoms.set_array('gamma', np.array([0.1, gamma, 0.2, 0.3]))
    atoms.set_momenta(np.ones((4, 3)))
    atoms.info['step'] = step
    return atoms


def found(**changes):
    return {'step': 100, 'force_rmse': 20.0, **changes}


def matter(**changes):
    return {'lonely': 0, 'lonely_before': 0, 'neighbours': 1.0, **changes}


def test_the_last_frame_and_the_least_certain_ones_along_the_way_in_their_order():
    along = [frame(10, 2.5), frame(20, 4.5), frame(30, 2.1), frame(50, 3.0)]
    runs = {'hot': {'final': [frame(50, 3.0)], 'snapshots': along}, 'cold': {'final': [frame(9, 1)]}}
    chosen = choose_frames(runs, 3)
    assert [(atoms.info['walker'], atoms.info['step']) for atoms in chosen] == [
        ('hot', 10), ('hot', 20), ('hot', 50), ('cold', 9)
    ]  # fmt: skip
    assert chosen[1].arrays['gamma'].max() == 4.5
    assert not any(atoms.has('momenta') for atoms in chosen)


def test_one_frame_is_the_last_one():
    (only,) = choose_frames({'w': {'final': [frame(7, 1)], 'snapshots': [frame(1, 9)]}}, 1)
    assert only.info['step'] == 7


@pytest.mark.parametrize(
    ('frames', 'volume', 'lost', 'reason'),
    [
        (
            [found(), found(force_rmse=101.0, step=300)],
            [10, 10],
            {},
            '101 meV/angstrom at step 300 (tolerance 100)',
        ),
        ([found()], [10, 10], {'lonely': 2}, '2 atoms have no neighbour within the cutoff at its end'),
        ([found()], [10, 10], {'neighbours': 0.5}, '0.50 times the neighbours'),
        ([found()], [10, 10], {'neighbours': 1.6}, '1.60 times the neighbours'),
        ([found()], [10, 200], {}, 'its density at the end is 0.05 times that at its start'),
        ([], [10, 10], {}, 'none of its frames has a label: SCF did not converge'),
    ],
)
def test_what_is_not_believed(frames, volume, lost, reason):
    verdict = judge_walkers(
        {'w': frames},
        {'w': volume},
        AuditSettings(),
        matter={'w': matter(**lost)},
        failures={'w': 'SCF did not converge'},
    )['w']
    assert not verdict['passed']
    assert reason in verdict['reasons'][0]
    assert explain_verdicts({'w': verdict})[0].startswith("walker 'w' failed the audit: ")


def test_what_is_believed():
    passed = judge_walkers(
        {'w': [found(), found(force_rmse=99.0)], 'gas': [found()]},
        {'w': [10, 14], 'gas': [1, 1]},
        AuditSettings(),
        matter={'gas': matter(lonely=3, lonely_before=3, neighbours=None)},  # the frame of w stayed where MD ran
        failures={},
    )
    assert all(verdict['passed'] for verdict in passed.values())
    assert (
        explain_verdicts(passed)[0]
        == "walker 'w' passed the audit: force RMSE of a frame at most 99 meV/angstrom, 2 labelled"
    )


def test_a_budget_that_pays_for_no_walker_is_refused():
    with pytest.raises(OodalError, match='max_labels = 3 does not pay for frames = 4 of one walker'):
        AuditSettings.load({'frames': 4, 'max_labels': 3})
