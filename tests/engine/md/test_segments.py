import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.outcome import Outcome, Verdict
from aiida_oodal.engine.md.segments import grade_frames, judge_frames, usable_frames

LIMITS = {'gamma_select': 2.0, 'gamma_break': 5.0, 'gamma_ceiling': 100.0}
DONE = Verdict(Outcome.COMPLETED, 'The run did all 40 steps.', last_step=40)


def frames(*largest):
    made = [Atoms('Al2', positions=np.zeros((2, 3)), info={'step': 10 * i}) for i in range(len(largest))]
    gamma = np.array([[0.5, value] for value in largest]).ravel()
    return grade_frames(made, gamma, np.arange(0, 2 * len(made) + 1, 2), np.arange(len(made)))


@pytest.mark.parametrize(
    ('largest', 'md', 'expected', 'kept'),
    [
        # outcome, trigger, select, candidate
        ((0.5, 1.0), DONE, (Outcome.COMPLETED, None, None, None), []),
        ((0.5, 3.0, 1.0), DONE, (Outcome.COMPLETED, None, 10, None), [10]),
        ((0.5, 3.0, 6.0, 900.0), DONE, (Outcome.UNCERTAIN, 20, 10, 20), [10, 20]),
        ((0.5, 3.0, 900.0, 6.0), DONE, (Outcome.EXPLODED, 20, 10, 10), [10]),
        ((0.5, np.inf), DONE, (Outcome.EXPLODED, 10, None, None), []),
        ((0.5, 3.0, 4.0), Verdict(Outcome.LOST_ATOMS, 'Gone.'), (Outcome.LOST_ATOMS, None, 10, 10), [10]),
        ((0.5, 6.0), Verdict(Outcome.LOST_ATOMS, 'Gone.'), (Outcome.UNCERTAIN, 10, 10, 10), [10]),
    ],
)
def test_the_first_frame_over_the_threshold_decides(largest, md, expected, kept):
    graded = frames(*largest)
    verdict = judge_frames(graded, md, **LIMITS)
    assert (verdict.outcome, verdict.trigger_step, verdict.select_step, verdict.candidate_step) == expected
    assert [atoms.info['step'] for atoms in usable_frames(graded, verdict, 2.0, 100.0)] == kept
    if verdict.candidate_step is not None:
        ((index, gamma),) = verdict.worst_atoms
        assert (index, gamma) == (1, largest[verdict.candidate_step // 10])


def test_a_frame_that_nobody_looked_at_is_not_safe():
    made = [Atoms('Al', info={'step': 10 * i}) for i in range(3)]
    with pytest.raises(OodalError, match=r'the frame of step 10 could not be graded \(1 of 3 frames\)'):
        grade_frames(made, np.zeros(2), np.arange(3), np.array([0, 2]))
