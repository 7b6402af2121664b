"""One row a structure: what to do with it first, then its scores against every reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from scipy.stats import rankdata

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.calibration import LEVELS
from aiida_oodal.engine.ood.looks import EITHER, OVERALL
from aiida_oodal.engine.ood.scores import OodScores

from .quadrants import flag_judges, quadrants

#: Columns of equal length by name.
Table = dict[str, list[Any]]


@dataclass(frozen=True)
class WorkList:
    """What is known of the structures of a set beside their scores; all by position in the set.

    :param name: of the set; a structure is called ``<name>_<position>``, as its file is.
    :param candidates: place among the candidates, from 1.
    :param reasons: why a structure was taken or left out.
    :param info: columns of the user's own, one entry a structure of the whole set.
    """

    name: str = 'structure'
    candidates: Mapping[int, int] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    info: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def score_table(
    references: Mapping[str, OodScores],
    work: WorkList | None = None,
    *,
    first: str | None = None,
    aggregate: str = EITHER,
    level: float = 0.95,
) -> tuple[Table, int]:
    """Put the scores of one set against one or more references side by side.

    First what one works through: ``name``, ``candidate`` (place among them), ``verdict`` (``out`` or ``known``),
    ``because`` (which score, by which look, is how far above which limit), ``rank`` (1 is the furthest out), ``reason``
    (why it was taken as a candidate or not), the user's own columns, ``structure`` (position in the set), ``n_atoms``.
    Then for every reference ``X``: ``out_X``, ``quadrant_X``, and for every metric ``m``: ``m_X`` (mean over atoms),
    ``m_max_X`` and so on (other aggregates), ``m_rank_X``, ``m_percentile_X`` (share of the set that is not further
    out, percent), ``m_above_90_X``, ``m_above_95_X``, ``m_above_99_X``; ``out_for_all``, and the composition. Without a
    reference name, ``{'': scores}``, nothing is appended.

    :param references: name of each reference and the scores of the same structures against it.
    :param first: the reference that the verdict is taken from; the first if not given.
    :param aggregate: from atoms to structures, of verdicts, ranks and flags.
    :return: columns of one entry a structure, and how many of them are the work list.
    :raises OodalError: if the references were scored on different structures.
    """
    if not references:
        raise OodalError('a table needs the scores against one reference at least')
    chosen = next(iter(references.values())) if first is None else references[first]
    for name, scores in references.items():
        if not np.array_equal(scores.offsets, chosen.offsets) or not np.array_equal(scores.numbers, chosen.numbers):
            raise OodalError(
                f'the scores against {name!r} are of other structures: score the same set against each reference'
            )
    table = _work_list(chosen, work or WorkList(), aggregate, level)
    n_work = len(table)
    all_out = np.ones(len(chosen), dtype=bool)
    for name, scores in references.items():
        suffix = f'_{name}' if name else ''
        out = _is_out(scores, aggregate, level)
        all_out &= out
        table[f'out{suffix}'] = out.tolist()
        if (found := quadrants(scores, aggregate=aggregate, level=level)) is not None:
            table[f'quadrant{suffix}'] = found
        for metric in _in_order(scores):
            table |= _columns(scores, metric, aggregate, suffix)
    table['out_for_all'] = all_out.tolist()
    return table | _composition(chosen), n_work


def _work_list(scores: OodScores, work: WorkList, aggregate: str, level: float) -> Table:
    """Return what one works through."""
    index = scores.structure_index.tolist()
    out = _is_out(scores, aggregate, level)
    metric, kind = scores.verdict
    if aggregate != EITHER:
        metric, kind = next((name for name in flag_judges(scores, aggregate)), metric), aggregate
    if kind not in scores.per_structure[metric]:
        metric, kind = scores.verdict
    ranks = rankdata(-scores.of(metric, kind), method='min').astype(int).tolist()
    spoken = scores.looks_above(OVERALL, level)
    table: Table = {
        'name': [f'{work.name}_{i:06d}' for i in index],
        'candidate': [work.candidates.get(i) for i in index],
        'verdict': ['out' if is_out else 'known' for is_out in out],
        'because': ['; '.join(map(str, looks)) for looks in spoken],
        'rank': ranks,
        'reason': [work.reasons.get(i, '') for i in index],
    }
    for column, values in work.info.items():
        if index and max(index) >= len(values):
            raise OodalError(f'column {column!r} has {len(values)} entries, but structure {max(index)} was scored')
        table[f'info_{column}' if column in table else column] = [values[i] for i in index]
    return table | {'structure': index, 'n_atoms': np.diff(scores.offsets).tolist()}


def _is_out(scores: OodScores, aggregate: str, level: float) -> Any:
    """Say which structures are out, shape (n_structures,)."""
    flags = flag_judges(scores, aggregate, level)
    if flags:
        return np.any(list(flags.values()), axis=0)
    return scores.flags(*scores.verdict, level)


def _in_order(scores: OodScores) -> list[str]:
    """Return the metrics, those that decide first and the flawed one last."""
    judges = [OVERALL, *(name for name, _ in scores.thresholds.pairs(OVERALL))]
    first = [name for name in dict.fromkeys(judges) if name in scores.metrics]
    return first + sorted((name for name in scores.metrics if name not in first), key=lambda name: name == 'variance')


def _composition(scores: OodScores) -> Table:
    """Count atoms of each element."""
    table: Table = {}
    for z in np.unique(scores.numbers):
        counts = np.add.reduceat((scores.numbers == z).astype(np.int64), scores.offsets[:-1])
        table[f'n_{chemical_symbols[z]}'] = counts.tolist()
    return table


def _columns(scores: OodScores, metric: str, aggregate: str, suffix: str) -> Table:
    """Return all columns of one score against one reference."""
    kinds = scores.per_structure[metric]
    main = aggregate if aggregate in kinds else next(iter(kinds))
    names = {kind: metric if kind == 'mean' or len(kinds) == 1 else f'{metric}_{kind}' for kind in kinds}
    table: Table = {f'{names[kind]}{suffix}': values.tolist() for kind, values in kinds.items()}
    values = kinds[main]
    table[f'{metric}_rank{suffix}'] = rankdata(-values, method='min').astype(int).tolist()
    table[f'{metric}_percentile{suffix}'] = (100.0 * rankdata(values, method='max') / max(len(values), 1)).tolist()
    for level in LEVELS:
        flags = scores.flags(metric, main, level)
        table[f'{metric}_above_{100 * level:.0f}{suffix}'] = flags.tolist()
    return table
