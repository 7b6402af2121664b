"""The grade of the centre, in the snapshot and in the cluster."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from machine import require

from aiida_oodal.engine.ace.evaluate import AceEvaluator
from aiida_oodal.engine.carve.cluster import extract_cluster, extract_clusters
from aiida_oodal.engine.carve.fidelity import add_second_opinion, check_fidelity
from aiida_oodal.engine.errors import OodalError

require('pyace')


@pytest.fixture(scope='module')
def ace() -> AceEvaluator:
    folder = Path(__file__).parents[2] / 'data' / 'ace-al'
    return AceEvaluator(folder / 'Al.yaml', folder / 'Al.asi')


WORST = [223, 457, 133, 0, 499]


@pytest.mark.parametrize(
    'options',
    [
        {'shape': 'sphere'},
        {'shape': 'sphere', 'buffer': 2.0},
        {'shape': 'cube', 'repair': 'drop'},
        {'shape': 'cube', 'repair': 'drop', 'bond_scale': 0.75},
        {'shape': 'cube', 'repair': 'relax', 'bond_scale': 0.5},
        {'shape': 'cube', 'repair': 'drop', 'buffer': 2.0, 'epsilon': 1e-6},
    ],
)
def test_gamma_of_the_centre_is_the_parents(hot_al: Atoms, ace: AceEvaluator, options: dict) -> None:
    options = {'radius': 4.0, 'buffer': 3.0, 'cutoff': 6.0} | options
    for center, cluster in zip(WORST, extract_clusters(hot_al, WORST, **options), strict=True):
        fidelity = check_fidelity(cluster, ace.gamma, gamma_break=5.0)
        assert fidelity.faithful
        assert fidelity.gamma_parent == hot_al.arrays['gamma'][center]
        assert fidelity.gamma_cluster == pytest.approx(fidelity.gamma_parent, rel=0, abs=1e-8)


@pytest.mark.parametrize('shape', ['sphere', 'cube'])
def test_a_buffer_that_is_too_small_is_refused(hot_al: Atoms, ace: AceEvaluator, shape: str) -> None:
    # A cutoff below the potential's lets a cell pass in which the centre sees vacuum (sphere) or atoms twice (cube).
    for center in WORST:
        cluster = extract_cluster(hot_al, center, 3.0, 1.0, cutoff=4.0, shape=shape, repair='drop')
        fidelity = check_fidelity(cluster, ace.gamma)
        assert abs(fidelity.gamma_cluster - fidelity.gamma_parent) > 0.03
        assert not fidelity.faithful
        assert 'does not show the failure: gamma of the centre is ' in fidelity.message
        assert 'use a larger buffer' in fidelity.message


def test_vacuum_inside_the_cutoff_is_refused(hot_al: Atoms, ace: AceEvaluator) -> None:
    # the edge exceeds twice the cutoff, but by vacuum
    cluster = extract_cluster(hot_al, 223, 3.0, 1.0, cutoff=6.0, epsilon=5.0, shape='sphere')
    assert not check_fidelity(cluster, ace.gamma).faithful


def test_a_repair_that_the_centre_feels_is_refused(hot_al: Atoms, ace: AceEvaluator) -> None:
    cluster = extract_cluster(hot_al, 223, 4.0, 2.0, cutoff=6.0, epsilon=0.1, min_distance=3.0, repair='drop')
    assert np.linalg.norm(cluster.positions - cluster.positions[0], axis=1).max() > 6.0
    assert cluster.info['repair_dropped'] > 20
    assert not check_fidelity(cluster, ace.gamma).faithful


def test_what_was_found_is_stored_with_the_cluster(hot_al: Atoms, ace: AceEvaluator) -> None:
    cluster = extract_cluster(hot_al, 223, 4.0, 3.0, cutoff=6.0, shape='sphere')
    fidelity = check_fidelity(cluster, ace.gamma, gamma_break=5.0)
    gamma, buffer = cluster.arrays['gamma_cluster'], cluster.arrays['force_mask'] == 0.0
    assert gamma[0] == fidelity.gamma_cluster == cluster.info['gamma_cluster']
    assert (
        fidelity.buffer_above_break == np.count_nonzero(gamma[buffer] > 5.0) == cluster.info['buffer_above_break'] > 0
    )
    assert fidelity.buffer_gamma_max == gamma[buffer].max() == cluster.info['buffer_gamma_max']
    assert cluster.info['faithful'] is True
    assert f'{fidelity.buffer_above_break} buffer atoms are above 5' in fidelity.message


def test_tolerances() -> None:
    cluster = Atoms('Al2')
    cluster.arrays['force_mask'] = np.array([1.0, 0.0])

    def graded(gamma: float, **options: float) -> bool:
        return check_fidelity(cluster, lambda _: [gamma, 9.0], 10.0, **options).faithful

    assert graded(10.11)
    assert not graded(10.12)
    assert not graded(9.88)
    assert graded(10.4, relative_tolerance=0.05)
    assert graded(10.4, relative_tolerance=0.0, absolute_tolerance=0.5)
    assert not graded(10.4, relative_tolerance=0.0, absolute_tolerance=0.0)


def test_bad_grades_are_a_clear_error() -> None:
    cluster = Atoms('Al2')
    cluster.arrays['force_mask'] = np.ones(2)
    with pytest.raises(OodalError, match='pass gamma_parent'):
        check_fidelity(cluster, lambda _: [1.0, 2.0])
    with pytest.raises(OodalError, match=r'shape \(3,\) for a cluster of 2 atoms'):
        check_fidelity(cluster, lambda _: [1.0, 2.0, 3.0], 1.0)
    with pytest.raises(OodalError, match='atom 1 of the cluster is not a number'):
        check_fidelity(cluster, lambda _: [1.0, np.nan], 1.0)
    with pytest.raises(OodalError, match='call check_fidelity first'):
        add_second_opinion(cluster, [1.0, 2.0], gamma_select=2.0, score_threshold=1.0)


@pytest.mark.parametrize(
    ('gamma', 'score', 'verdict'), [(3, 2, 'both'), (3, 1, 'gamma only'), (2, 2, 'score only'), (1, 0.5, 'neither')]
)
def test_second_opinion(gamma: float, score: float, verdict: str) -> None:
    cluster = Atoms('Al2')
    cluster.arrays['force_mask'] = np.array([1.0, 0.0])
    check_fidelity(cluster, lambda _: [gamma, 0.0], gamma)
    opinion = add_second_opinion(cluster, [score, 7.0], gamma_select=2.0, score_threshold=1.0)
    assert opinion.verdict == cluster.info['second_opinion'] == verdict
    assert cluster.info['score'] == score
    assert cluster.arrays['score'].tolist() == [score, 7.0]
