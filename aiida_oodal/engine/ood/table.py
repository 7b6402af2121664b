"""One row a structure: its scores against every reference, rank, percentile, flags, quadrant, elements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from scipy.stats import rankdata

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.calibration import LEVELS
from aiida_oodal.engine.ood.quadrants import quadrants
from aiida_oodal.engine.ood.scores import OodScores

#: Columns of equal length by name.
Table = dict[str, list[Any]]


def score_table(
    references: Mapping[str, OodScores],
    *,
    disagreement: str = 'aligned_variance',
    distance: str = 'mahalanobis',
    aggregate: str = 'mean',
    level: float = 0.95,
    info: Mapping[str, Sequence[Any]] | None = None,
) -> Table:
    """Put the scores of one set against one or more references side by side.

    For every reference ``X`` and metric ``m``: ``m_X`` (by ``aggregate``), ``m_max_X`` and so on (other aggregates),
    ``m_rank_X`` (1 is the furthest out), ``m_percentile_X`` (share of the set that is not further out, percent),
    ``m_above_90_X``, ``m_above_95_X``, ``m_above_99_X``; then ``quadrant_X`` and ``out_X`` (disagreement or distance
    above the threshold of ``level``); at last ``out_for_all``. Without a reference name, ``{'': scores}``, nothing is
    appended.

    :param references: name of each reference and the scores of the same structures against it.
    :param disagreement: the score of the models' disagreement.
    :param distance: the score of the distance; the quadrant needs both, ``out`` takes what is there.
    :param info: further columns to put first, e.g. node identifiers, one entry a structure.
    :return: columns of one entry a structure.
    :raises OodalError: if the references were scored on different structures.
    """
    if not references:
        raise OodalError('a table needs the scores against one reference at least')
    first = next(iter(references.values()))
    for name, scores in references.items():
        if not np.array_equal(scores.offsets, first.offsets) or not np.array_equal(scores.numbers, first.numbers):
            raise OodalError(
                f'the scores against {name!r} are of other structures: score the same set against each reference'
            )
    table: Table = {'structure': first.structure_index.tolist()}
    for column, values in (info or {}).items():
        if len(values) != len(first):
            raise OodalError(f'column {column!r} has {len(values)} entries for {len(first)} structures')
        table[column] = list(values)
    table |= _composition(first)
    out = np.ones(len(first), dtype=bool)
    for name, scores in references.items():
        suffix = f'_{name}' if name else ''
        for metric in scores.metrics:
            table |= _columns(scores, metric, aggregate, suffix)
        judged = [metric for metric in (disagreement, distance) if metric in scores.metrics]
        if len(judged) == 2:
            chosen: dict[str, Any] = {'disagreement': disagreement, 'distance': distance}
            table[f'quadrant{suffix}'] = quadrants(scores, **chosen, aggregate=aggregate, level=level)
        if judged:
            own = np.any([scores.flags(metric, aggregate, level) for metric in judged], axis=0)
            table[f'out{suffix}'] = own.tolist()
            out &= own
        else:
            out[:] = False
    table['out_for_all'] = out.tolist()
    return table


def rows(table: Table) -> Iterator[dict[str, Any]]:
    """Go through the rows of a table as dictionaries."""
    return (dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True))


def _composition(scores: OodScores) -> Table:
    """Count atoms, and atoms of each element."""
    table: Table = {'n_atoms': np.diff(scores.offsets).tolist()}
    for z in np.unique(scores.numbers):
        counts = np.add.reduceat((scores.numbers == z).astype(np.int64), scores.offsets[:-1])
        table[f'n_{chemical_symbols[z]}'] = counts.tolist()
    return table


def _columns(scores: OodScores, metric: str, aggregate: str, suffix: str) -> Table:
    """Return all columns of one score against one reference."""
    kinds = scores.per_structure[metric]
    main = aggregate if aggregate in kinds else next(iter(kinds))
    values = kinds[main]
    table: Table = {f'{metric}{suffix}': values.tolist()}
    table |= {f'{metric}_{kind}{suffix}': other.tolist() for kind, other in kinds.items() if kind != main}
    table[f'{metric}_rank{suffix}'] = rankdata(-values, method='min').astype(int).tolist()
    table[f'{metric}_percentile{suffix}'] = (100.0 * rankdata(values, method='max') / max(len(values), 1)).tolist()
    for level in LEVELS:
        flags = scores.flags(metric, main, level)
        table[f'{metric}_above_{100 * level:.0f}{suffix}'] = flags.tolist()
    return table
