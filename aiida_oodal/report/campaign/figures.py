"""Figures of a campaign, drawn with plotly."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import make_colorscale, sample_colorscale
from plotly.subplots import make_subplots

from aiida_oodal.engine.thresholds import Thresholds

from .about import choose_evenly
from .history import CampaignHistory, Round, WalkerRun

if TYPE_CHECKING:
    from aiida_oodal.data import ClusterData

COLORS = ('#b2182b', '#ef8a62', '#e3b448', '#67a9cf', '#2166ac', '#542788', '#1b7837', '#4d4d4d')
#: A page of a long campaign stays readable: so many walkers, rounds, points of a line and clusters are drawn at most.
MOST_WALKERS, MOST_ROUNDS, MOST_POINTS, MOST_CLUSTERS = 24, 12, 300, 40
LAYOUT = {
    'template': 'plotly_white',
    'font': {'family': 'system-ui, sans-serif', 'size': 14},
    'margin': {'l': 60, 'r': 30, 't': 64, 'b': 50},
}
#: Below the figure, whatever its width: a share of its height would lie over the axis of a narrow one.
LEGEND = {'orientation': 'h', 'yref': 'container', 'y': 0.0, 'yanchor': 'bottom', 'xref': 'paper', 'x': 0.0}


def draw_gamma(history: CampaignHistory) -> dict[str, go.Figure]:
    """Draw the largest extrapolation grade against the step, a figure a walker, a line a round.

    Of many walkers the first, of many rounds some between the first and the last are drawn, see :func:`choose_rounds`.
    """
    figures: dict[str, go.Figure] = {}
    rounds = choose_rounds(history)
    colors = sample_colorscale(make_colorscale(COLORS[:6]), np.linspace(0, 1, len(rounds)).tolist()) if rounds else []
    for entry, color in zip(rounds, colors, strict=True):
        for walker in entry.walkers[:MOST_WALKERS]:
            figure = figures.setdefault(walker.name, go.Figure())
            series = _series(walker)
            if series is None:
                continue
            figure.add_trace(
                go.Scatter(
                    x=series['step'],
                    y=series['max_gamma'].astype(np.float32),
                    customdata=series['temp'].astype(np.float32),
                    name=f'round {entry.number}',
                    line={'color': color, 'width': 2},
                    hovertemplate='step %{x}<br>γ %{y:.2f}<br>%{customdata:.0f} K<extra></extra>',
                )
            )
    levels = _thresholds(history)
    for name, figure in figures.items():
        for level, dash in levels:
            figure.add_hline(y=level, line={'dash': dash, 'color': '#666', 'width': 1})
        figure.update_yaxes(type='log', title_text='largest γ of all atoms', dtick=1)
        figure.update_xaxes(title_text='MD step')
        figure.update_layout(
            **LAYOUT, height=380, title={'text': name, 'xref': 'paper', 'x': 0.0}, legend=LEGEND, showlegend=True
        )
    return figures


def choose_rounds(history: CampaignHistory) -> list[Round]:
    """Return the rounds whose MD is drawn: all, or the first, the last and some that are evenly spaced between."""
    return [history.rounds[index] for index in choose_evenly(len(history.rounds), MOST_ROUNDS)]


def draw_errors(history: CampaignHistory) -> go.Figure:
    """Draw the labelled atoms behind each potential, and its force error on the validation set where there is one."""
    trainings = history.trainings
    figure = make_subplots(specs=[[{'secondary_y': True}]])
    labels = list(range(len(trainings)))
    figure.add_trace(
        go.Bar(
            x=labels,
            y=[(entry.get('training') or {}).get('n_atoms') for entry in trainings],
            name='labelled atoms',
            marker={'color': '#d1e5f0'},
        )
    )
    judged = [(entry.get('validation') or {}).get('force_rmse') for entry in trainings]
    if any(error is not None for error in judged):
        # On the second axis, because plotly draws it on top of the bars.
        line = {'color': '#b2182b', 'width': 3}
        figure.add_trace(
            go.Scatter(x=labels, y=judged, name='force RMSE', mode='lines+markers', line=line), secondary_y=True
        )
        figure.update_yaxes(title_text='force RMSE [meV/Å]', rangemode='tozero', tickmode='auto', secondary_y=True)
    figure.update_xaxes(title_text='training', tickformat='d', dtick=max(1, -(-len(trainings) // 12)))
    figure.update_yaxes(title_text='labelled atoms', showgrid=False, secondary_y=False)
    figure.update_layout(**LAYOUT, height=400, legend=LEGEND)
    figure.update_layout(margin={'r': 70})  # of the second axis
    return figure


def draw_clusters(history: CampaignHistory) -> go.Figure:
    """Draw labelled clusters in space: the centre, the core coloured by gamma in the snapshot, the buffer faint."""
    figure = go.Figure()
    buttons = []
    clusters = choose_clusters(history)
    for index, (entry, walker, cluster) in enumerate(clusters):
        for trace in _draw_cluster(cluster):
            trace.visible = index == 0
            figure.add_trace(trace)
        visible = [number // 2 == index for number in range(2 * len(clusters))]
        step = cluster.base.attributes.get('step', None)
        buttons.append(
            {
                'label': f'round {entry.number}, {walker.name}, step {step}, cluster {cluster.pk}',
                'method': 'update',
                'args': [{'visible': visible}],
            }
        )
    axis = {'showbackground': False, 'showgrid': False, 'zeroline': False, 'showticklabels': False, 'title': ''}
    figure.update_layout(
        **LAYOUT,
        height=560,
        scene={'xaxis': axis, 'yaxis': axis, 'zaxis': axis, 'aspectmode': 'data'},
        updatemenus=[{'buttons': buttons, 'x': 0.0, 'xanchor': 'left', 'y': 1.08}] if buttons else [],
        legend={'orientation': 'h', 'y': 0},
    )
    return figure


def choose_clusters(history: CampaignHistory) -> list[tuple[Round, WalkerRun, ClusterData]]:
    """Return the labelled clusters that are drawn: all, or of each round those with the largest gamma.

    If there are more rounds than clusters can be drawn, one of each of some rounds that are evenly spaced.
    """
    by_round: dict[int, list[tuple[Round, WalkerRun, ClusterData]]] = {}
    for each in history.list_labelled():
        by_round.setdefault(each[0].number, []).append(each)
    ranked: list[tuple[int, Round, WalkerRun, ClusterData]] = []
    for found in by_round.values():
        found.sort(key=lambda each: -(each[2].base.attributes.get('gamma_parent', None) or 0.0))
        ranked += [(rank, *each) for rank, each in enumerate(found)]
    ranked.sort(key=lambda each: each[0])  # rounds stay in their order
    firsts = [each for each in ranked if each[0] == 0]
    if len(firsts) > MOST_CLUSTERS:
        ranked = [firsts[index] for index in choose_evenly(len(firsts), MOST_CLUSTERS)]
    taken = sorted(ranked[:MOST_CLUSTERS], key=lambda each: (each[1].number, each[0]))
    return [(entry, walker, cluster) for _, entry, walker, cluster in taken]


def _draw_cluster(cluster: ClusterData) -> list[go.Scatter3d]:
    """Return the buffer and the core of one cluster as two traces."""
    atoms = cluster.get_atoms()
    core = atoms.arrays['force_mask'] > 0.5
    gamma = np.full(len(atoms), np.nan) if cluster.gamma is None else cluster.gamma
    size = np.where(np.arange(len(atoms)) == 0, 16, 10)
    x, y, z = atoms.positions.T.astype(np.float32)
    told = np.column_stack([atoms.arrays['parent_index'], gamma]).astype(np.float32)
    shared: dict[str, Any] = {
        'mode': 'markers',
        'hovertemplate': '%{text}, atom %{customdata[0]:d} of the snapshot<br>γ %{customdata[1]:.2f}<extra></extra>',
    }
    symbols = np.array(atoms.get_chemical_symbols())
    return [
        go.Scatter3d(
            x=x[~core],
            y=y[~core],
            z=z[~core],
            text=symbols[~core],
            customdata=told[~core],
            name='buffer (force_mask 0)',
            marker={'size': 6, 'color': '#bbbbbb', 'opacity': 0.35},
            **shared,
        ),
        go.Scatter3d(
            x=x[core],
            y=y[core],
            z=z[core],
            text=symbols[core],
            customdata=told[core],
            name='core (force_mask 1); the centre is larger',
            marker={
                'size': size[core],
                'color': gamma[core].astype(np.float32),
                'colorscale': 'YlOrRd',
                'cmin': 0,
                'colorbar': {'title': 'γ', 'thickness': 14},
                'line': {'color': '#333', 'width': 1},
            },
            **shared,
        ),
    ]


def _series(walker: WalkerRun) -> dict[str, Any] | None:
    if walker.md is None or 'series' not in walker.md.outputs:
        return None
    node = walker.md.outputs.series
    series = {name: node.get_array(name) for name in ('step', 'max_gamma', 'temp')}
    kept = _thin(series['max_gamma'])
    return {name: values[kept] for name, values in series.items()}


def _thin(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which values of a long line are drawn: the largest of each stretch, the first and the last."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    bounds = np.linspace(0, len(values), MOST_POINTS - 1).astype(int)
    known = np.nan_to_num(values, nan=-np.inf)
    largest = [start + int(np.argmax(known[start:stop])) for start, stop in itertools.pairwise(bounds)]
    return np.unique([0, *largest, len(values) - 1])


def _thresholds(history: CampaignHistory) -> list[tuple[float, str]]:
    """Return gamma_select and gamma_break of the walkers of all rounds, with the dash each is drawn with."""
    levels = set()
    for walker in (walker for entry in history.rounds for walker in entry.walkers):
        if walker.md is not None:
            given = walker.md.inputs.thresholds.get_dict() if 'thresholds' in walker.md.inputs else {}
            thresholds = Thresholds.load(given)
            levels |= {(thresholds.gamma_select, 'dot'), (thresholds.gamma_break, 'dash')}
    return sorted(levels)
