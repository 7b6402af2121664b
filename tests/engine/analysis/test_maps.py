import importlib.metadata

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.spatial.distance import pdist

from aiida_oodal.engine.analysis.maps import (
    CONTOUR_SHARES,
    Grid,
    find_regions,
    fit_density,
    fit_map,
    methods,
    sample_sets,
)
from aiida_oodal.engine.errors import OodalError


@pytest.fixture(scope='module')
def blobs():
    """Two groups far apart in eight dimensions, shape (120, 8)."""
    points = np.random.default_rng(1).normal(size=(120, 8))
    points[60:, 0] += 20.0
    return points


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(1, 120), st.data())
def test_a_sample_is_fair_and_complete(sizes, n, data):
    keep = [data.draw(st.lists(st.integers(0, size - 1), unique=True)) if size else [] for size in sizes]
    chosen = sample_sets(sizes, n, keep=keep, seed=2)
    counts = [len(rows) for rows in chosen]
    assert sum(counts) == min(n, sum(sizes))
    for rows, size, first in zip(chosen, sizes, keep, strict=True):
        assert np.all(np.diff(rows) > 0)
        assert set(rows) <= set(range(size))
        assert len(set(first) & set(rows)) == min(len(first), len(rows))
    # A set that gives less than another gives all it has (sharing leaves a remainder of one at most).
    for count, size in zip(counts, sizes, strict=True):
        assert count == size or count >= max(counts) - 1
    again = sample_sets(sizes, n, keep=keep, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(chosen, again, strict=True))


def test_pca_shows_true_distances_of_a_plane_and_never_larger_ones(blobs):
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    plane = blobs[:, :2] @ turned[:2]
    np.testing.assert_allclose(pdist(fit_map(plane).coordinates), pdist(plane), rtol=1e-9)
    found = fit_map(blobs)
    assert np.all(pdist(found.coordinates) <= pdist(blobs) * (1 + 1e-9))
    assert found.axes[0].startswith('PC 1 (9')
    np.testing.assert_array_equal(found.coordinates, fit_map(blobs).coordinates)


def test_tsne_keeps_groups_apart_and_repeats_itself(blobs):
    found = fit_map(blobs, 'tsne', seed=3).coordinates
    groups = found[:60], found[60:]
    gap = np.linalg.norm(groups[0].mean(axis=0) - groups[1].mean(axis=0))
    assert gap > max(np.linalg.norm(g - g.mean(axis=0), axis=1).max() for g in groups)
    np.testing.assert_array_equal(found, fit_map(blobs, 'tsne', seed=3).coordinates)
    assert fit_map(blobs[:4], 'tsne').coordinates.shape == (4, 2)


def test_umap_is_offered_only_where_it_is_installed(blobs):
    try:
        importlib.metadata.distribution('umap-learn')
    except importlib.metadata.PackageNotFoundError:
        assert methods() == ('pca', 'tsne')
        with pytest.raises(OodalError, match='pip install umap-learn'):
            fit_map(blobs, 'umap')
    else:
        assert methods() == ('pca', 'tsne', 'umap')
        assert fit_map(blobs, 'umap').coordinates.shape == (120, 2)


@pytest.mark.parametrize(
    ('points', 'method', 'message'),
    [
        (np.zeros((3, 5)), 'pca', 'four points'),
        (np.zeros((9, 1)), 'pca', 'two features'),
        (np.full((9, 3), np.nan), 'tsne', 'not finite'),
        (np.zeros((9, 3)), 'mds', "'mds' is not a kind of map"),
    ],
)
def test_what_cannot_be_mapped_is_refused(points, method, message):
    with pytest.raises(OodalError, match=message):
        fit_map(points, method)


def test_points_that_are_all_one_still_have_a_map():
    found = fit_map(np.ones((12, 4)))
    np.testing.assert_array_equal(found.coordinates, 0.0)
    grid = Grid.around(found.coordinates)
    assert np.isfinite(fit_density(found.coordinates, grid).log_density).all()
    assert len(find_regions(found.coordinates, grid).centres) == 1


@pytest.mark.parametrize('unit', [1.0, 1e-6])
def test_density_is_normalised_whatever_the_unit_and_contours_enclose_their_share(blobs, unit):
    coordinates = unit * fit_map(blobs).coordinates
    grid = Grid.around(coordinates, 300)
    density = fit_density(coordinates, grid)
    assert density.n_components == 2 == int(np.argmin(density.bic)) + 1
    cell = np.diff(grid.x[:2])[0] * np.diff(grid.y[:2])[0]
    assert np.exp(density.log_density).sum() * cell == pytest.approx(1.0, abs=0.05)
    column = np.searchsorted(grid.x, coordinates[:, 0]).clip(max=299)
    row = np.searchsorted(grid.y, coordinates[:, 1]).clip(max=299)
    at_points = density.log_density[row, column]
    for level, share in zip(density.levels, CONTOUR_SHARES, strict=True):
        assert np.mean(at_points >= level) == pytest.approx(share, abs=0.08)


def test_too_few_points_have_no_density():
    with pytest.raises(OodalError, match='three or more'):
        fit_density(np.zeros((2, 2)), Grid.around(np.zeros((2, 2))))


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 5))
def test_regions_belong_to_the_nearest_centre(n_points, n_regions, seed):
    points = np.random.default_rng(seed).normal(size=(n_points, 2))
    grid = Grid.around(points, 20)
    regions = find_regions(points, grid, n_regions, seed=seed)
    assert len(regions.centres) == min(n_points, n_regions)
    assert np.all(np.diff(regions.centres[:, 0]) >= 0)
    assert set(regions.labels) == set(range(len(regions.centres)))
    for where, labels in ((points, regions.labels), (grid.points, regions.filled.ravel())):
        distance = np.linalg.norm(where[:, None] - regions.centres, axis=2)
        np.testing.assert_allclose(distance[np.arange(len(where)), labels], distance.min(axis=1))
