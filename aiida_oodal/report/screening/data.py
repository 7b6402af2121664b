"""What the script of a screening's page reads: numbers packed as base64, texts as they are."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import ArrayLike

from aiida_oodal.engine.ood.metrics import describe_scores

from .content import ViewedSet
from .drawing import (
    QUADRANT_COLORS,
    QUADRANT_NAMES,
    UNITS,
    DrawnMap,
    IntArray,
    ScreenDrawing,
    aggregates,
    distribution,
    rank_correlation,
)

#: Names of the maps for people.
MAP_NAMES = {'pca': 'PCA', 'tsne': 't-SNE', 'umap': 'UMAP'}
_TYPES = {'f4': '<f4', 'i4': '<i4', 'u1': '|u1'}


def pack_screen(drawing: ScreenDrawing, max_atoms: int) -> dict[str, Any]:
    """Collect everything that the page draws.

    :param max_atoms: atoms whose positions and scores are taken along: candidates first, then the structures with the
        largest scores.
    """
    view = drawing.view
    return {
        'sets': [_pack_set(entry, color) for entry, color in zip(view.sets, drawing.colors, strict=True)],
        'quadrants': [{'name': n, 'color': c} for n, c in zip(QUADRANT_NAMES, QUADRANT_COLORS, strict=True)],
        'level': view.level,
        'main': view.judged_by(view.references[0])[0],
        'aggregate': view.aggregate,
        'references': {name: _pack_reference(drawing, name) for name in view.references},
        'points': {
            'set': _pack(drawing.set_of, 'i4'),
            'position': _pack(drawing.position, 'i4'),
            'structure': _pack(
                np.concatenate([entry.first.structure_index[entry.positions] for entry in view.sets]), 'i4'
            ),
        },
        'errors': {name: _pack(values, 'f4') for name, values in drawing.errors().items()},
        'atoms': _pack_atoms(drawing, max_atoms),
        'mapNames': MAP_NAMES,
        'first': int(order_by_interest(drawing)[0]),
    }


def order_by_interest(drawing: ScreenDrawing) -> IntArray:
    """Return the structures shown in the order in which a reader wants to see them: candidates, then the worst."""
    view = drawing.view
    reference = view.references[0]
    metric = view.judged_by(reference)[0]
    kind = view.aggregate if view.aggregate in aggregates(view, reference, metric) else 'mean'
    score = np.nan_to_num(drawing.score(reference, metric, kind), nan=-np.inf, posinf=np.finfo(float).max)
    taken = np.concatenate([np.isin(entry.positions, list(entry.candidates)) for entry in view.sets])
    return np.lexsort((-score, ~taken))


def _pack_set(entry: ViewedSet, color: str) -> dict[str, Any]:
    return {
        'name': entry.name,
        'role': entry.role,
        'color': color,
        'n': len(entry),
        'nodes': {name: str(node) for name, node in entry.nodes.items()},
        'uuid': entry.nodes['structures'].uuid if 'structures' in entry.nodes else None,
        'candidates': {str(position): reason for position, reason in entry.candidates.items()},
    }


def _pack_reference(drawing: ScreenDrawing, name: str) -> dict[str, Any]:
    view = drawing.view
    metrics: dict[str, Any] = {}
    texts = describe_scores()
    for metric in view.metrics(name):
        metrics[metric] = {'text': texts.get(metric, ''), 'unit': UNITS.get(metric, ''), 'aggregates': {}}
        for kind in aggregates(view, name, metric):
            found = distribution(view, name, metric, kind)
            metrics[metric]['aggregates'][kind] = {
                'values': _pack(drawing.score(name, metric, kind), 'f4'),
                'edges': found.edges.tolist(),
                'log': found.logarithmic,
                'shares': {label: values.tolist() for label, values in found.shares.items()},
                'infinite': {label: count for label, count in found.infinite.items() if count},
                'thresholds': {f'{level:.0%}': value for level, value in found.thresholds.items()},
                'rho': {error: rank_correlation(view, error, name, metric, kind) for error in drawing.errors()},
            }
    return {
        'metrics': metrics,
        'quadrant': _pack(drawing.quadrant(name), 'i4'),
        'maps': {kind: _pack_map(drawn) for kind, drawn in drawing.maps[name].items()},
    }


def _pack_map(drawn: DrawnMap) -> dict[str, Any]:
    found, density, regions = drawn.latent_map, drawn.density, drawn.regions
    # Far outside the density falls without end: nothing is drawn there.
    floor = density.levels[-1] - 3.0 * (density.levels[0] - density.levels[-1] + 1.0)
    return {
        'rows': _pack(drawn.rows, 'i4'),
        'x': _pack(found.coordinates[:, 0], 'f4'),
        'y': _pack(found.coordinates[:, 1], 'f4'),
        'axes': found.axes,
        'gridX': density.grid.x.tolist(),
        'gridY': density.grid.y.tolist(),
        'density': np.maximum(density.log_density, floor).round(3).tolist(),
        'levels': density.levels.tolist(),
        'components': density.n_components,
        'densityOf': drawn.density_of,
        'regions': regions.filled.tolist(),
        'centres': regions.centres.tolist(),
        'counts': drawn.counts.tolist(),
    }


def _pack_atoms(drawing: ScreenDrawing, max_atoms: int) -> dict[str, Any]:
    """Pack structures one after the other until ``max_atoms`` is reached; ``start`` is -1 for those left out."""
    view = drawing.view
    start = np.full(len(drawing.set_of), -1)
    size = np.zeros(len(drawing.set_of), dtype=np.int64)
    chosen: list[tuple[ViewedSet, int, int]] = []
    total = 0
    for point in order_by_interest(drawing):
        entry, position = view.sets[drawing.set_of[point]], int(drawing.position[point])
        n_atoms = int(np.diff(entry.first.offsets[position : position + 2])[0])
        if entry.structures is None or total + n_atoms > max_atoms:
            continue
        start[point], size[point] = total, n_atoms
        chosen.append((entry, position, n_atoms))
        total += n_atoms
    numbers = [entry.first.numbers[_atoms(entry, position)] for entry, position, _ in chosen]
    packed: dict[str, Any] = {
        'start': _pack(start, 'i4'),
        'size': _pack(size, 'i4'),
        'numbers': _pack(_join(numbers, 1), 'u1'),
        'positions': _pack(_join([_frame(entry, position)[0] for entry, position, _ in chosen], 3), 'f4'),
        'cells': {
            int(point): _frame(view.sets[drawing.set_of[point]], int(drawing.position[point]))[1]
            for point in np.flatnonzero(start >= 0)
        },
        'scores': {},
        'limits': {},
        'elements': {
            int(z): {'symbol': chemical_symbols[z], 'radius': round(float(covalent_radii[z]), 3)}
            for z in np.unique(np.concatenate([entry.first.numbers for entry in view.sets]))
        },
    }
    for name in view.references:
        packed['scores'][name], packed['limits'][name] = {}, {}
        elements = np.array(sorted(packed['elements']))
        thresholds = next(scores for _, scores in view.scored(name)).thresholds
        for metric in view.metrics(name):
            if any(metric not in scores.per_atom for _, scores in view.scored(name)):
                continue
            values = [_atom_scores(entry, position, name, metric, n_atoms) for entry, position, n_atoms in chosen]
            packed['scores'][name][metric] = _pack(_join(values, 1), 'f4')
            limits = thresholds.of_atoms(metric, view.level, elements)
            packed['limits'][name][metric] = dict(zip(elements.tolist(), limits.tolist(), strict=True))
    if any(entry.force_errors is not None for entry in view.sets):
        truth = [
            np.full(n_atoms, np.nan) if entry.force_errors is None else entry.force_errors[_atoms(entry, position)]
            for entry, position, n_atoms in chosen
        ]
        packed['errors'] = _pack(_join(truth, 1), 'f4')
    return packed


def _atoms(entry: ViewedSet, position: int) -> slice:
    return slice(int(entry.first.offsets[position]), int(entry.first.offsets[position + 1]))


def _frame(entry: ViewedSet, position: int) -> tuple[Any, list[list[float]] | None]:
    """Return positions (n, 3), and the cell where the structure is periodic, angstrom."""
    structures = entry.structures
    assert structures is not None
    index = int(entry.first.structure_index[position])
    part = slice(int(structures.offsets[index]), int(structures.offsets[index + 1]))
    cell = structures.cells[index].round(4).tolist() if structures.pbc[index].any() else None
    return structures.positions[part], cell


def _atom_scores(entry: ViewedSet, position: int, reference: str, metric: str, n_atoms: int) -> Any:
    if reference not in entry.scores:
        return np.full(n_atoms, np.nan)
    return entry.scores[reference].per_atom[metric][_atoms(entry, position)]


def _join(parts: list[Any], width: int) -> Any:
    shape = (0, width) if width > 1 else (0,)
    return np.concatenate([np.empty(shape), *parts])


def _pack(values: ArrayLike, kind: str) -> dict[str, str]:
    """Pack numbers as the script unpacks them: little-endian bytes, base64; NaN and infinity survive."""
    raw = np.ascontiguousarray(values, dtype=_TYPES[kind]).tobytes()
    return {'t': kind, 'b': base64.b64encode(raw).decode('ascii')}
