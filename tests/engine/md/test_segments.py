import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.md.segments import judge_frames, usable_frames
from aiida_oodal.engine.md.verdict import Outcome, Verdict
from aiida_oodal.engine.thresholds import Thresholds

LIMITS = Thresholds(gamma_select=2.0, gamma_break=5.0, gamma_ceiling=100.0)
DONE = Verdict(Outcome.COMPLETED, 'The run did all 40 steps.', last_step=40)


def frames(*largest):
    made = [Atoms('Al2', positions=np.zeros((2, 3)), info={'step': 10 * i}) for i in range(len(largest))]
    for atoms, value in zip(made, largest, strict=True):
        atoms.arrays['gamma'] = np.array([0.5, value])
    return made


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
    verdict = judge_frames(graded, md, LIMITS)
    assert (verdict.outcome, verdict.trigger_step, verdict.select_step, verdict.candidate_step) == expected
    assert [atoms.info['step'] for atoms in usable_frames(graded, verdict, LIMITS)] == kept
    if verdict.candidate_step is not None:
        ((index, gamma),) = verdict.worst_atoms
        assert (index, gamma) == (1, largest[verdict.candidate_step // 10])


@pytest.mark.parametrize(
    ('largest', 'last_valid'),
    [((0.5, 3.0), 15), ((0.5, 3.0, 6.0, 900.0), 20), ((0.5, 3.0, 900.0, 6.0), 10), ((900.0, 1.0), None)],
)
def test_what_came_after_the_trigger_is_not_valid(largest, last_valid):
    md = Verdict(Outcome.COMPLETED, 'Done.', last_step=40, last_valid_step=15)
    assert judge_frames(frames(*largest), md, LIMITS).last_valid_step == last_valid
