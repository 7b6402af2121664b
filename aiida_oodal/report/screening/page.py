"""The page of a screening: one HTML file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.offline

from aiida_oodal import __version__
from aiida_oodal.engine.analysis.maps import Method
from aiida_oodal.engine.analysis.quadrants import DEFINITION, flag_judges
from aiida_oodal.engine.analysis.statistics import (
    FlagShare,
    Separation,
    find_contradictions,
    flag_shares,
    separation,
    wilson_interval,
)
from aiida_oodal.engine.ood.looks import OVERALL
from aiida_oodal.engine.ood.metrics import CONTRASTED, describe_scores
from aiida_oodal.templates import get_template

from .content import ScreenView, ViewedSet
from .data import pack_screen
from .drawing import QUADRANT_NAMES, ScreenDrawing, draw_screen

#: Rows of the list of candidates; the table of the screening has all of them.
_MAX_ROWS = 200
#: What to say of the structures that a score calls out.
_JUDGED = {'aligned_variance': 'the models disagree about', 'mahalanobis': 'far from the reference set:'}


def write_screen_page(
    view: ScreenView,
    path: Path,
    *,
    kinds: Sequence[Method] | None = None,
    max_points: int = 2000,
    max_atoms: int = 100_000,
    seed: int = 0,
) -> Path:
    """Write the page of a screening and return its absolute path.

    :param path: of the HTML file; its folder is made.
    :param kinds: of map; all that can be made here if not given.
    :param max_points: structures to show one by one, shared fairly among the sets; tables and distributions count all.
    :param max_atoms: atoms of the structures that can be looked at; about 60 bytes each.
    :param seed: of the choice and of the maps.
    """
    drawing = draw_screen(view, kinds=kinds, max_points=max_points, seed=seed)
    data = pack_screen(drawing, max_atoms)
    rows = list_shares(view)
    page = get_template('report/screen.html.j2').render(
        view=view,
        headline=headline(view),
        definition_of_out=define_out(view),
        rows=rows,
        blind=explain_blind(rows),
        candidates=list_candidates(drawing),
        n_candidates=sum(len(entry.candidates) for entry in view.targets),
        n_shown=len(drawing.set_of),
        n_structures=sum(len(entry) for entry in view.sets),
        n_embedded=len(data['atoms']['cells']),
        colors=dict(zip([entry.name for entry in view.sets], drawing.colors, strict=True)),
        has_errors=bool(data['errors']),
        has_maps=any(data['references'][name]['maps'] for name in view.references),
        has_umap=any('umap' in data['references'][name]['maps'] for name in view.references),
        definition=DEFINITION,
        contradictions=list_contradictions(view),
        metrics={name: describe_scores()[name] for key in view.references for name in view.metrics(key)},
        plotly=plotly.offline.get_plotlyjs(),
        # '<' could end the script in which the data stand.
        data=json.dumps(data, allow_nan=False).replace('<', '\\u003c'),
        version=__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding='utf-8')
    return path.resolve()


def headline(view: ScreenView) -> list[str]:
    """Say in plain words what the models disagree about, how much, and against what; the worst target first."""
    found = []
    for reference in view.references:
        found += [_describe(view, entry, reference) for entry in view.targets if reference in entry.scores]
    sentences = [text for _, text in sorted(found, key=lambda pair: -pair[0])]
    if len(view.references) > 1:
        for entry in view.targets:
            if set(entry.scores) == set(view.references):
                both = int(np.all([view.is_out(entry, name) for name in view.references], axis=0).sum())
                sentences.append(
                    f'{both} of the {len(entry)} structures of {entry.name} are out for every reference '
                    f'({", ".join(view.references)}): the models disagree, or it is far.'
                )
    return sentences


def list_shares(view: ScreenView) -> list[dict[str, Any]]:
    """Return a row for each reference, score and set: shares above the thresholds, separation from the held-out set.

    ``main`` marks the scores that decide, ``blind`` those that do not separate the set from the held-out one.
    """
    rows = []
    for reference in view.references:
        base = view.in_distribution(reference)
        for metric in view.metrics(reference):
            for entry, scores in view.scored(reference):
                kind = view.aggregate_of(entry, reference, metric)
                found: Separation | None = None
                if base is not None and entry.role == 'target':
                    inside = base.scores[reference].of(metric, kind)
                    what = f'{metric} ({kind}) of {entry.name} against {base.name}:'
                    found = separation(inside, scores.of(metric, kind), what)
                rows.append(
                    {
                        'reference': reference,
                        'metric': metric,
                        'aggregate': kind,
                        'set': entry,
                        'shares': [_text_of(share) for share in flag_shares(scores, metric, kind)],
                        'separation': found,
                        'blind': found is not None and found.low <= 0.5,
                        'main': metric in view.judged_by(reference),
                    }
                )
    return rows


def explain_blind(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return for each set a sentence on the scores that decide but do not separate it from the held-out structures.

    :param rows: of :func:`list_shares`.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        if row['main'] and row['blind']:
            found.setdefault(row['set'].name, []).append(row['separation'].sentence)
    return found


def list_contradictions(view: ScreenView) -> list[str]:
    """Say where one score flags many structures of a target, and another none."""
    sentences = []
    for reference in view.references:
        versus = f' against {reference}' if len(view.references) > 1 else ''
        for entry in (entry for entry in view.targets if reference in entry.scores):
            flagged = entry.scores[reference].count_flagged(CONTRASTED, view.level)
            found = find_contradictions(flagged, len(entry), view.level)
            sentences += [f'{entry.name}{versus}: {sentence}.' for sentence in found]
    return sentences


def define_out(view: ScreenView) -> str:
    """Return a sentence that defines which structures count as out."""
    metrics = view.judged_by(view.references[0])
    share = f'of a set like the reference {1.0 - view.level:.0%} would be by chance.'
    if OVERALL in metrics:
        judges = ' or '.join(metrics[1:] or ['the score'])
        return (
            f'A structure is out if {judges}, by the mean over its atoms or by its worst atom, is above what about '
            f'{view.level:.0%} of the held-out structures stay below with all of these looks; {share}'
        )
    return (
        f'A structure is out if {" or ".join(metrics)} ({view.aggregate} over atoms) is above what about '
        f'{view.level:.0%} of the held-out structures stay below; {share}'
    )


def list_candidates(drawing: ScreenDrawing, n: int = _MAX_ROWS) -> list[dict[str, Any]]:
    """Return a row for each candidate, in the order in which they were taken, ``n`` at most."""
    view = drawing.view
    reference = view.references[0]
    metric = view.judged_by(reference)[0]
    quadrant = drawing.quadrant(reference)
    points = {(int(s), int(p)): i for i, (s, p) in enumerate(zip(drawing.set_of, drawing.position, strict=True))}
    rows = []
    for number, entry in enumerate(view.sets):
        for order, (position, reason) in enumerate(entry.candidates.items(), start=1):
            point = points.get((number, position))
            place = -1 if point is None else int(quadrant[point])
            rows.append(
                {
                    'order': order,
                    'set': entry.name,
                    'structure': int(entry.first.structure_index[position]),
                    'point': point,
                    'metric': metric,
                    'score': float(
                        entry.scores[reference].of(metric, view.aggregate_of(entry, reference, metric))[position]
                    )
                    if reference in entry.scores
                    else float('nan'),
                    'quadrant': QUADRANT_NAMES[place] if place >= 0 else '',
                    'reason': reason,
                }
            )
    return rows[:n]


def _describe(view: ScreenView, entry: ViewedSet, reference: str) -> tuple[float, str]:
    """Return the share of a target that is out, and a sentence about it."""
    n_out, n = int(np.count_nonzero(view.is_out(entry, reference))), len(entry)
    low, high = wilson_interval(n_out, n)
    expected = 1.0 - view.level
    if low > expected:
        verdict = 'far more than by chance' if low > 3.0 * expected else 'more than by chance'
    elif high < expected:
        verdict = 'fewer than by chance: the models know it'
    else:
        verdict = 'no more than by chance'
    versus = f' against {reference}' if len(view.references) > 1 else ''
    flags = flag_judges(entry.scores[reference], view.aggregate, view.level)
    counts = {name: int(np.count_nonzero(own)) for name, own in flags.items()}
    words = [f'{_JUDGED[name]} {count}' for name, count in counts.items() if name in _JUDGED]
    because = f' ({"; ".join(words)})' if n_out and words else ''
    text = (
        f'{entry.name}{versus}: {n_out} of {n} structures are out ({n_out / n:.0%}, 95 % interval {low:.0%} to '
        f'{high:.0%}), {verdict}{because}.'
    )
    return n_out / n, text


def _text_of(share: FlagShare) -> dict[str, str]:
    return {
        'share': f'{share.share:.1%}',
        'interval': f'{share.low:.1%} – {share.high:.1%}',
        'count': f'{share.n_above} of {share.n}',
    }
