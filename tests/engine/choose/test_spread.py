"""Near-duplicates, farthest points, K-means."""

import numpy as np
import pytest

from aiida_oodal.engine.choose.spread import Duplicate, deduplicate, farthest_points, kmeans_points
from aiida_oodal.engine.errors import OodalError


def test_duplicates_of_what_is_known_and_of_what_comes_before() -> None:
    points = np.array([[0.0, 0.0], [0.0, 0.3], [5.0, 0.0], [5.0, 0.6], [9.0, 9.0], [5.0, 1.1]])
    found = deduplicate(points, np.array([[1.0, 1.0], [9.0, 9.1]]), tolerance=0.55)
    assert [None if d is None else (d.of, d.known) for d in found] == [
        None,
        (0, False),
        None,
        None,  # 0.6 from the last one
        (1, True),
        (3, False),
    ]
    assert found[1] == Duplicate(0, False, pytest.approx(0.3))
    # 3 is no duplicate of 1, which was not kept
    chain = np.array([[0.0], [0.5], [1.0]])
    assert [d is None for d in deduplicate(chain, tolerance=0.6)] == [True, False, True]


def test_relative_distance_grows_with_the_vectors() -> None:
    points = np.array([[100.0, 0.0], [101.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = deduplicate(points, tolerance=0.05, relative=True)
    assert [None if d is None else d.of for d in found] == [None, 0, None, None, None, 4]


def test_farthest_points_cover_groups_first() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [20, 0], [0, 20], [20, 20.0]])
    points = np.concatenate([centre + rng.normal(0, 0.3, (25, 2)) for centre in centres])
    chosen = farthest_points(points, 4)
    assert {index // 25 for index, _ in chosen} == {0, 1, 2, 3}
    distances = [distance for _, distance in farthest_points(points, 30)]
    assert np.all(np.diff(distances[1:]) <= 1e-12)
    # what is known is not chosen again
    chosen = farthest_points(points, 2, known=centres[:2])
    assert {index // 25 for index, _ in chosen} == {2, 3}
    assert chosen[0][1] == pytest.approx(min(np.linalg.norm(points[chosen[0][0]] - k) for k in centres[:2]))


def test_the_mean_is_where_farthest_points_begin_and_nothing_to_keep_away_from() -> None:
    assert [i for i, _ in farthest_points(np.array([[3.0, 4.0]]), 1)] == [0]
    angles = np.arange(8) * np.pi / 4
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    chosen = [i for i, _ in farthest_points(np.vstack([ring, [[0.05, 0.0]]]), 6)]
    assert chosen.index(8) < 5  # 0.95 from all others, which are 0.77 apart


def test_farthest_points_stop_at_copies() -> None:
    assert [i for i, _ in farthest_points(np.array([[0.0], [0.0], [4.0], [4.0]]), 4)] == [0, 2]
    assert [i for i, _ in farthest_points(np.array([[1.0], [3.0]]), 5)] == [0, 1]
    assert farthest_points(np.array([[1.0], [3.0]]), 5, known=np.array([[1.0], [3.0]])) == []


def test_kmeans_takes_the_middle_of_each_group() -> None:
    rng = np.random.default_rng(1)
    centres = np.array([[0, 0], [20, 0], [0, 20.0]])
    points = np.concatenate([centre + rng.normal(0, 0.5, (30, 2)) for centre in centres])
    chosen = kmeans_points(points, 3, seed=0)
    assert [index // 30 for index, _ in chosen] == [0, 1, 2]
    for index, distance in chosen:
        group = points[30 * (index // 30) :][:30]
        own = np.linalg.norm(group - group.mean(axis=0), axis=1)
        assert distance == pytest.approx(own.min())
        assert own[index % 30] == own.min()
    assert kmeans_points(points, 3, seed=0) == chosen
    assert [i for i, _ in kmeans_points(np.array([[1.0], [1.0], [2.0]]), 2, seed=0)] == [0, 2]


def test_bad_input_is_a_clear_error() -> None:
    for function in (
        lambda x: deduplicate(x, tolerance=1.0),
        lambda x: farthest_points(x, 1),
        lambda x: kmeans_points(x, 1, seed=0),
    ):
        with pytest.raises(OodalError, match=r'descriptors have shape \(3,\)'):
            function(np.ones(3))
        with pytest.raises(OodalError, match='not finite'):
            function(np.full((3, 2), np.inf))
    with pytest.raises(OodalError, match='2 features in the candidates and 3 in the known'):
        deduplicate(np.ones((1, 2)), np.ones((1, 3)), tolerance=0.1)
