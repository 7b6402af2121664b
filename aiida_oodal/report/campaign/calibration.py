"""Gamma against truth: the figure and the table of the page of a campaign."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from aiida_oodal.engine.trust.bound import ErrorBound
from aiida_oodal.engine.trust.calibration import Sample
from aiida_oodal.engine.trust.judge import ERROR, GAMMA

from .figures import COLORS, LAYOUT, LEGEND
from .history import CampaignHistory, Round

#: Gamma at which the bound is shown in tables.
SHOWN = (0.5, 1.0, 2.0, 5.0)
#: Atoms that are drawn in all rounds together, and in each at least.
_MOST_POINTS, _LEAST_POINTS = 6000, 60


def draw_calibration(history: CampaignHistory) -> go.Figure:
    """Draw the force error of judged atoms against gamma, and the bound of every round; atoms are thinned evenly."""
    rounds = [entry for entry in history.rounds if entry.judged]
    most = max(_LEAST_POINTS, _MOST_POINTS // max(len(rounds), 1))
    figure = go.Figure()
    for entry in rounds:
        color = COLORS[(entry.number - 1) % len(COLORS)]
        sample = _thin(read_sample(entry), most)
        group = {'legendgroup': f'{entry.number}', 'hoverinfo': 'skip'}
        figure.add_trace(
            go.Scatter(
                x=sample.gamma,
                y=sample.error,
                mode='markers',
                marker={'color': color, 'size': 4, 'opacity': 0.35},
                name=f'round {entry.number}',
                showlegend=not entry.calibration.get('bound'),
                **group,
            )
        )
        if entry.calibration.get('bound'):
            bound = ErrorBound.from_plain(entry.calibration['bound'])
            figure.add_trace(
                go.Scatter(
                    x=bound.gamma,
                    y=bound.error,
                    mode='lines',
                    line={'color': color, 'width': 3},
                    name=f'round {entry.number}',
                    **group,
                )
            )
    figure.update_xaxes(type='log', title_text='γ of the atom')
    figure.update_yaxes(type='log', title_text='force error [eV/Å]', dtick=1)
    figure.update_layout(**LAYOUT, height=460, legend=LEGEND)
    return figure


def list_calibrations(history: CampaignHistory) -> list[dict[str, Any]]:
    """Return a row for each calibration: what was promised and observed, and the bound at some gamma."""
    rows = []
    for entry in history.rounds:
        if not entry.calibration:
            continue
        found = entry.calibration
        bound = ErrorBound.from_plain(found['bound']) if found['bound'] else None
        at = {} if bound is None else {gamma: float(bound(gamma)) for gamma in SHOWN if gamma <= bound.largest}
        rows.append({'round': entry.number, **found, 'at': [at.get(gamma) for gamma in SHOWN]})
    return rows


def read_sample(entry: Round) -> Sample:
    """Return the atoms that were judged in a round, those of the validation set among them."""
    samples = Sample.of_structures(list(entry.judged['judged'])) if 'judged' in entry.judged else []
    if (validation := entry.judged.get('judged_validation')) is not None:
        samples.append(Sample(validation.get_array(GAMMA), validation.get_array(ERROR)))
    return Sample.join(samples)


def _thin(sample: Sample, most: int) -> Sample:
    """Return at most so many atoms, evenly over the order of their gamma; a log axis shows neither 0 nor infinity."""
    order = np.argsort(sample.gamma)
    order = order[(sample.gamma[order] > 0.0) & np.isfinite(sample.gamma[order]) & (sample.error[order] > 0.0)]
    kept = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
    return Sample(np.round(sample.gamma[kept], 4), np.round(sample.error[kept], 5))
