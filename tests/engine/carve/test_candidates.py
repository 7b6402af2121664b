"""From snapshots to candidates: what is cut, who grades it, and what is told of every centre."""

import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.carve.candidates import cells_of, choose_clusters, cut_candidates, judge_candidates
from aiida_oodal.engine.carve.opinions import Opinion
from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.errors import OodalError

CARVE = {'gamma_select': 1.2, 'centres_per_snapshot': 3, 'cutoff': 6.0}


def attempts_of(snapshot: Atoms, **settings):
    return cut_candidates([snapshot], CarveSettings.load(CARVE | settings), None)


def opinion(cell: Atoms, gamma: float, score: float) -> Opinion:
    n = len(cell)
    return Opinion(np.full(n, gamma), np.full(n, score), 0.5, np.array([score, 1.0]))


def test_an_ensemble_alone_grades_the_cells(hot_al: Atoms) -> None:
    attempts = attempts_of(hot_al)
    cells = cells_of(attempts)
    assert len(cells) == 3
    opinions = [opinion(cell, attempt.gamma, 0.7) for cell, attempt in zip(cells, attempts, strict=True)]
    opinions[1] = opinion(cells[1], 2 * attempts[1].gamma, 0.7)
    opinions[2] = None
    found = judge_candidates(attempts, CarveSettings.load(CARVE), None, opinions, gamma_break=0.5)
    assert [decision['taken'] for decision in found.decisions] == [True, False, False]
    assert 'does not show the failure' in found.decisions[1]['reason']
    assert 'the ensemble could not evaluate the cell' in found.decisions[2]['reason']
    (cluster,) = found.clusters
    assert cluster.info['gamma_cluster'] == cluster.info['gamma_parent'] == attempts[0].gamma
    assert (cluster.info['score'], cluster.info['score_threshold']) == (0.7, 0.5)
    assert cluster.info['buffer_above_break'] == np.count_nonzero(cluster.arrays['force_mask'] == 0.0)
    assert 'second_opinion' not in cluster.info
    flagged = judge_candidates(attempts, CarveSettings.load(CARVE | {'unfaithful': 'flag'}), None, opinions)
    assert [decision['taken'] for decision in flagged.decisions] == [True, True, False]


def test_beside_a_potential_it_gives_a_second_opinion(hot_al: Atoms) -> None:
    attempts = attempts_of(hot_al)
    cells = cells_of(attempts)
    opinions = [opinion(cells[0], 0.0, 0.7), opinion(cells[1], 0.0, 0.3), None]
    found = judge_candidates(attempts, CarveSettings.load(CARVE), lambda cell: cell.arrays['gamma'], opinions)
    assert [decision.get('second_opinion') for decision in found.decisions] == ['both', 'gamma only', None]
    assert all(decision['taken'] for decision in found.decisions)  # an opinion is no veto
    assert 'the ensemble agrees (both out of distribution): its score is 0.7' in found.decisions[0]['reason']
    assert 'the ensemble disagrees (gamma only out of distribution)' in found.decisions[1]['reason']
    assert found.decisions[1]['gamma_cluster'] == attempts[1].gamma
    assert (found.decisions[1]['score'], found.decisions[1]['score_threshold']) == (0.3, 0.5)


def test_several_centres_do_not_overlap_and_frames_that_are_not_physical_are_passed_over(hot_al: Atoms) -> None:
    wild = hot_al.copy()
    wild.arrays['gamma'] = hot_al.arrays['gamma'] * 1e3
    wild.info['step'] = 310
    settings = CarveSettings.load(CARVE | {'min_separation': 8.0})
    attempts = cut_candidates([hot_al, wild], settings, None)
    assert {attempt.step for attempt in attempts} == {300}
    centres = [attempt.centre for attempt in attempts]
    apart = hot_al.get_all_distances(mic=True)[np.ix_(centres, centres)] + 99 * np.eye(len(centres))
    assert len(centres) > 1
    assert apart.min() >= 8.0


def test_a_cell_that_cannot_be_cut_has_its_reason(hot_al: Atoms) -> None:
    # buffer atoms 3 angstrom apart and no repair: every cube has some across its boundary
    attempts = attempts_of(hot_al, repair='error', min_distance=3.0)
    assert cells_of(attempts) == []
    found = judge_candidates(attempts, CarveSettings.load(CARVE))
    assert found.clusters == ()
    assert all('across the cell boundary' in decision['reason'] for decision in found.decisions)


def test_what_cannot_be_judged_is_a_clear_error(hot_al: Atoms) -> None:
    with pytest.raises(OodalError, match='cutoff is missing: give that of the models of the ensemble'):
        cut_candidates([hot_al], CarveSettings.load({}), None)
    # the larger of two cutoffs holds
    assert CarveSettings.load({'cutoff': 7.0}).for_cutoff(6.0).cutoff == 7.0
    assert CarveSettings.load({'cutoff': 5.0}).for_cutoff(6.0).cutoff == 6.0
    attempts = attempts_of(hot_al)
    with pytest.raises(OodalError, match='nothing grades the cells'):
        judge_candidates(attempts, CarveSettings.load(CARVE))
    with pytest.raises(OodalError, match='1 opinions on 3 cells: the latents are of other cells'):
        judge_candidates(attempts, CarveSettings.load(CARVE), None, [None])


@pytest.mark.parametrize('method', ['farthest', 'kmeans'])
def test_candidates_without_an_active_set_are_chosen_by_spread(hot_al: Atoms, method: str) -> None:
    cells = cells_of(attempts_of(hot_al))
    for cell, point in zip(cells, ([9.0, 0.0], [9.0, 0.001], [0.0, 9.0]), strict=True):
        cell.info |= {'descriptor': point, 'gamma_cluster': 3.0}
    settings = SelectSettings.load({'method': method, 'max_clusters': 3})
    decisions = choose_clusters(cells, settings)
    assert [decision.taken for decision in decisions] == [True, False, True]
    assert decisions[1].reason.startswith('a near-duplicate of candidate 0')
    decisions = choose_clusters(cells, settings, queued=cells[:1])
    assert [decision.taken for decision in decisions] == [False, False, True]
    assert decisions[0].reason == 'the queue holds it already'
    assert decisions[1].reason.startswith('a near-duplicate of structure 0 that is known')
    assert choose_clusters([], settings) == []
    del cells[0].info['descriptor']
    decisions = choose_clusters(cells, settings)
    assert [(decision.index, decision.taken) for decision in decisions] == [(0, False), (1, True), (2, True)]
    assert decisions[0].reason == 'no ensemble looked at it, and the choice is by latents'
    del cells[1].info['descriptor'], cells[2].info['descriptor']
    with pytest.raises(OodalError, match='no candidate has a descriptor, because no ensemble looked at them'):
        choose_clusters(cells, settings)
    with pytest.raises(OodalError, match="method = 'maxvol' needs the active set of an ACE potential"):
        choose_clusters(cells, SelectSettings.load({}))
