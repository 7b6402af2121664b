"""From snapshots to candidates: what is cut, who grades it, and what is told of every centre."""

import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.carve.candidates import cells_of, check_graded, cut_candidates, judge_candidates
from aiida_oodal.engine.carve.selection import choose_clusters
from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Grades
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds

CARVE = {'centres_per_snapshot': 3, 'cutoff': 6.0}
THRESHOLDS = Thresholds(gamma_select=1.2)


def attempts_of(snapshot: Atoms, **settings):
    return cut_candidates([snapshot], CarveSettings.load(CARVE | settings), THRESHOLDS, None)


def opinion(cell: Atoms, gamma: float, score: float) -> Grades:
    n = len(cell)
    return Grades(np.full(n, gamma), np.array([score, 1.0]), np.full(n, score), 0.5)


def own(cell: Atoms) -> Grades:
    return Grades(cell.arrays['gamma'], np.zeros(2))


def test_an_ensemble_alone_grades_the_cells(hot_al: Atoms) -> None:
    attempts = attempts_of(hot_al)
    cells = cells_of(attempts)
    assert len(cells) == 3
    grades = [opinion(cell, attempt.gamma, 0.7) for cell, attempt in zip(cells, attempts, strict=True)]
    grades[1] = opinion(cells[1], 2 * attempts[1].gamma, 0.7)
    grades[2] = 'the models could not evaluate it'
    low = Thresholds(gamma_select=0.4, gamma_break=0.5)
    found = judge_candidates(attempts, CarveSettings.load(CARVE), low, grades)
    assert [decision['taken'] for decision in found.decisions] == [True, False, False]
    assert 'does not show the failure' in found.decisions[1]['reason']
    assert found.decisions[2]['reason'] == 'the models could not evaluate it'
    (cluster,) = found.clusters
    assert cluster.info['gamma_cluster'] == cluster.info['gamma_parent'] == attempts[0].gamma
    assert (cluster.info['score'], cluster.info['score_threshold']) == (0.7, 0.5)
    assert cluster.info['buffer_above_break'] == np.count_nonzero(cluster.arrays['force_mask'] == 0.0)
    assert 'second_opinion' not in cluster.info
    flagged = judge_candidates(attempts, CarveSettings.load(CARVE | {'unfaithful': 'flag'}), THRESHOLDS, grades)
    assert [decision['taken'] for decision in flagged.decisions] == [True, True, False]


def test_beside_a_potential_it_gives_a_second_opinion(hot_al: Atoms) -> None:
    attempts = attempts_of(hot_al)
    cells = cells_of(attempts)
    opinions = [opinion(cells[0], 0.0, 0.7), opinion(cells[1], 0.0, 0.3), 'no memory left']
    found = judge_candidates(attempts, CarveSettings.load(CARVE), THRESHOLDS, [own(cell) for cell in cells], opinions)
    assert [decision.get('second_opinion') for decision in found.decisions] == ['both', 'gamma only', None]
    assert all(decision['taken'] for decision in found.decisions)  # an opinion is no veto
    assert 'the ensemble agrees (both out of distribution): its score is 0.7' in found.decisions[0]['reason']
    assert 'the ensemble disagrees (gamma only out of distribution)' in found.decisions[1]['reason']
    assert 'no second opinion: no memory left' in found.decisions[2]['reason']
    assert found.decisions[1]['gamma_cluster'] == attempts[1].gamma
    assert (found.decisions[1]['score'], found.decisions[1]['score_threshold']) == (0.3, 0.5)


def test_several_centres_do_not_overlap_and_frames_that_are_not_physical_are_passed_over(hot_al: Atoms) -> None:
    wild = hot_al.copy()
    wild.arrays['gamma'] = hot_al.arrays['gamma'] * 1e3
    wild.info['step'] = 310
    settings = CarveSettings.load(CARVE | {'min_separation': 8.0})
    attempts = cut_candidates([hot_al, wild], settings, THRESHOLDS, None)
    assert {attempt.step for attempt in attempts} == {300}
    centres = [attempt.centre for attempt in attempts]
    apart = hot_al.get_all_distances(mic=True)[np.ix_(centres, centres)] + 99 * np.eye(len(centres))
    assert len(centres) > 1
    assert apart.min() >= 8.0


def test_a_frame_that_is_small_enough_is_one_candidate(hot_al: Atoms) -> None:
    attempts = attempts_of(hot_al, whole_atoms=len(hot_al))
    (cell,) = cells_of(attempts)
    assert attempts[0].centre == int(hot_al.arrays['gamma'].argmax())
    found = judge_candidates(attempts, CarveSettings.load(CARVE), THRESHOLDS, [own(cell)])
    (whole,) = found.clusters
    assert len(whole) == len(hot_al)
    assert whole.info['gamma_cluster'] == hot_al.arrays['gamma'].max()
    assert whole.info['buffer_above_break'] == 0
    assert len(attempts_of(hot_al, whole_atoms=len(hot_al) - 1)) == 3


def test_a_cell_that_cannot_be_cut_has_its_reason(hot_al: Atoms) -> None:
    # buffer atoms 3 angstrom apart and no repair: every cube has some across its boundary
    attempts = attempts_of(hot_al, repair='error', min_distance=3.0)
    assert cells_of(attempts) == []
    found = judge_candidates(attempts, CarveSettings.load(CARVE), THRESHOLDS, [])
    assert found.clusters == ()
    assert all('across the cell boundary' in decision['reason'] for decision in found.decisions)


def test_what_cannot_be_judged_is_a_clear_error(hot_al: Atoms) -> None:
    with pytest.raises(OodalError, match='cutoff is missing: give the cutoff of the models of the ensemble'):
        cut_candidates([hot_al], CarveSettings.load({}), THRESHOLDS, None)
    # the larger of two cutoffs holds
    assert CarveSettings.load({'cutoff': 7.0}).for_cutoff(6.0).cutoff == 7.0
    assert CarveSettings.load({'cutoff': 5.0}).for_cutoff(6.0).cutoff == 6.0
    attempts = attempts_of(hot_al)
    with pytest.raises(OodalError, match='there are 1 grades for 3 cells'):
        judge_candidates(attempts, CarveSettings.load(CARVE), THRESHOLDS, [own(hot_al)])


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            lambda frame: frame.arrays.pop('gamma'),
            "snapshot 1 has no 'gamma': take frames of an MD run that computed gamma",
        ),
        (lambda frame: frame.info.pop('step'), "snapshot 1 has no 'step'"),
        (lambda frame: frame.arrays['gamma'].fill(np.nan), r'snapshot 1 \(step 300\): gamma of atom 0 is not a number'),
    ],
)
def test_frames_that_nobody_graded_are_named(hot_al: Atoms, spoil, message) -> None:
    blind = hot_al.copy()
    spoil(blind)
    with pytest.raises(OodalError, match=message):
        cut_candidates([hot_al, blind], CarveSettings.load(CARVE), THRESHOLDS, None)


@pytest.mark.parametrize('method', ['auto', 'farthest', 'kmeans'])
def test_candidates_without_an_active_set_are_chosen_by_spread(hot_al: Atoms, method: str) -> None:
    cells = cells_of(attempts_of(hot_al))
    points = ([9.0, 0.0], [9.0, 0.001], [0.0, 9.0])
    grades = [Grades(np.array([3.0]), np.array(point)) for point in points]
    settings = SelectSettings.load({'method': method, 'max_clusters': 3})

    def choose(cells, grades, **known):
        return choose_clusters(cells, grades, settings, Thresholds(), has_active_set=False, **known)

    decisions = choose(cells, grades)
    assert [decision.taken for decision in decisions] == [True, False, True]
    assert 'of candidate 0 (tolerance' in decisions[1].reason
    decisions = choose(cells, grades, known=cells[:1], known_grades=grades[:1])
    assert [decision.taken for decision in decisions] == [False, False, True]
    assert decisions[0].reason == 'the queue holds it already'
    assert 'of known structure 0 (tolerance' in decisions[1].reason
    assert choose([], []) == []
    decisions = choose(cells, ['out of memory', *grades[1:]])
    assert [(decision.index, decision.taken) for decision in decisions] == [(0, False), (1, True), (2, True)]
    assert decisions[0].reason == 'out of memory'
    with pytest.raises(OodalError, match="method = 'maxvol' needs the active set of an ACE potential"):
        choose_clusters(cells, grades, SelectSettings(method='maxvol'), Thresholds(), has_active_set=False)


def test_with_an_active_set_the_volume_decides(hot_al: Atoms) -> None:
    """Descriptors are coordinates of the active set: what it covers adds nothing."""
    cells = cells_of(attempts_of(hot_al))
    points = ([0.0, 8.0], [0.0, 4.0], [3.0, 0.0])
    grades = [Grades(np.array([max(point)]), np.array(point)) for point in points]
    decisions = choose_clusters(cells, grades, SelectSettings(), Thresholds(), has_active_set=True)
    assert [decision.taken for decision in decisions] == [True, False, True]
    assert decisions[1].reason == 'those taken cover it: gamma falls from 4 to 0.5'


def change(frame: Atoms, what: str) -> Atoms:
    changed = frame.copy()
    if what == 'all of gamma':
        changed.arrays['gamma'] = np.full(len(changed), np.nan)
    elif what == 'gamma of an atom':
        changed.arrays['gamma'][7] = np.nan
    elif what == 'shape of gamma':
        del changed.arrays['gamma']
        changed.arrays['gamma'] = np.ones((len(changed), 3))
    elif what == 'text':
        changed.info['step'] = 'last'
    else:
        changed.arrays.pop(what, None)
        changed.info.pop(what, None)
    return changed


@pytest.mark.parametrize(
    ('what', 'message'),
    [
        ('all of gamma', r"snapshot 1 has no 'gamma'|snapshot 1 .*gamma of atom 0 is not a number"),
        ('gamma of an atom', r'snapshot 1 \(step 300\): gamma of atom 7 is not a number: grade the frame again'),
        ('gamma', "snapshot 1 has no 'gamma': take frames of an MD run"),
        ('step', "snapshot 1 has no 'step'"),
        ('shape of gamma', r'snapshot 1: gamma has the shape \(\d+, 3\)'),
        ('text', "snapshot 1: step = 'last' is not a number"),
    ],
)
@pytest.mark.parametrize('stored', [False, True])
def test_frames_that_nobody_graded_are_refused_by_name(hot_al: Atoms, what: str, message: str, stored: bool) -> None:
    frames = [hot_al, change(hot_al, what)]
    if stored and what in ('shape of gamma', 'text'):
        frames = frames[1:]  # arrays of two shapes, or of two kinds, are not stored together
        message = message.replace('snapshot 1', 'snapshot 0')
    frames = list(StructureSet.from_atoms(frames)) if stored else frames
    with pytest.raises(OodalError, match=message):
        cut_candidates(frames, CarveSettings.load(CARVE), THRESHOLDS, None)


@pytest.mark.parametrize(
    ('what', 'message'),
    [
        ('all of gamma', 'snapshot 1: gamma of atom 0 is not a number'),
        ('gamma of an atom', 'snapshot 1: gamma of atom 7 is not a number'),
        ('gamma', 'snapshot 1: gamma of atom 0 is not a number'),
        ('step', 'snapshot 1: step is not a number'),
    ],
)
def test_and_so_they_are_before_a_job_is_submitted(hot_al: Atoms, what: str, message: str) -> None:
    assert check_graded(StructureSet.from_atoms([hot_al, hot_al])) is None
    first = hot_al.copy()
    first.info['step'] = float(first.info['step'])
    assert message in check_graded(StructureSet.from_atoms([first, change(hot_al, what)]))
    only = StructureSet.from_atoms([change(hot_al, 'shape of gamma')])
    assert 'not a number an atom' in check_graded(only)
