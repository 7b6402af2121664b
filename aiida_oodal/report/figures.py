"""Figures of a campaign, drawn with plotly."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .history import CampaignHistory, Round, WalkerRun

_COLORS = ('#b2182b', '#ef8a62', '#e3b448', '#67a9cf', '#2166ac', '#542788', '#1b7837', '#4d4d4d')
_LAYOUT = {
    'template': 'plotly_white',
    'font': {'family': 'system-ui, sans-serif', 'size': 14},
    'margin': {'l': 60, 'r': 20, 't': 64, 'b': 50},
}


def draw_gamma(history: CampaignHistory) -> go.Figure:
    """Draw the largest extrapolation grade against the step, a panel a walker, a line a round."""
    names = [walker.name for walker in history.rounds[0].walkers] if history.rounds else []
    figure = make_subplots(
        rows=1, cols=max(len(names), 1), shared_yaxes=True, subplot_titles=names, horizontal_spacing=0.04
    )
    for entry in history.rounds:
        for column, walker in enumerate(entry.walkers, start=1):
            series = _series(walker)
            if series is None:
                continue
            figure.add_trace(
                go.Scatter(
                    x=series['step'],
                    y=series['max_gamma'],
                    customdata=series['temp'],
                    name=f'round {entry.number}',
                    legendgroup=f'{entry.number}',
                    showlegend=column == 1,
                    line={'color': _COLORS[(entry.number - 1) % len(_COLORS)], 'width': 2},
                    hovertemplate='step %{x}<br>γ %{y:.2f}<br>%{customdata:.0f} K<extra></extra>',
                ),
                row=1,
                col=column,
            )
    for settings in _thresholds(history):
        figure.add_hline(y=settings[0], line={'dash': settings[1], 'color': '#666', 'width': 1})
    figure.update_yaxes(type='log', row=1)
    figure.update_yaxes(title_text='largest γ of all atoms', col=1)
    figure.update_xaxes(title_text='MD step')
    figure.update_layout(**_LAYOUT, height=420, legend={'orientation': 'h', 'y': -0.2})
    return figure


def draw_errors(history: CampaignHistory) -> go.Figure:
    """Draw the force error on the validation set and the labelled atoms behind each potential."""
    trainings = history.trainings
    figure = make_subplots(specs=[[{'secondary_y': True}]])
    labels = [f'potential {index}' for index in range(len(trainings))]
    figure.add_trace(
        go.Bar(
            x=labels,
            y=[entry['training']['n_atoms'] for entry in trainings],
            name='labelled atoms',
            marker={'color': '#d1e5f0'},
        )
    )
    judged = [entry['validation']['force_rmse'] if entry.get('validation') else None for entry in trainings]
    # On the second axis, because plotly draws it on top of the bars.
    figure.add_trace(
        go.Scatter(x=labels, y=judged, name='force RMSE', mode='lines+markers', line={'color': '#b2182b', 'width': 3}),
        secondary_y=True,
    )
    figure.update_yaxes(title_text='labelled atoms', showgrid=False, secondary_y=False)
    figure.update_yaxes(title_text='force RMSE [meV/Å]', rangemode='tozero', tickmode='auto', secondary_y=True)
    figure.update_layout(**_LAYOUT, height=380, legend={'orientation': 'h', 'y': -0.15})
    return figure


def draw_clusters(history: CampaignHistory) -> go.Figure:
    """Draw each labelled cluster in space: the centre, the core coloured by gamma in the snapshot, the buffer faint."""
    figure = go.Figure()
    buttons = []
    clusters = [
        (entry, walker, key, cluster)
        for entry in history.rounds
        for walker in entry.walkers
        for key, cluster in walker.clusters.items()
        if f'{walker.name}_{key}' in entry.queued
    ]
    for index, (entry, walker, _, cluster) in enumerate(clusters):
        for trace in _draw_cluster(walker, cluster):
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
        **_LAYOUT,
        height=560,
        scene={'xaxis': axis, 'yaxis': axis, 'zaxis': axis, 'aspectmode': 'data'},
        updatemenus=[{'buttons': buttons, 'x': 0.0, 'xanchor': 'left', 'y': 1.08}] if buttons else [],
        legend={'orientation': 'h', 'y': 0},
    )
    return figure


def _draw_cluster(walker: WalkerRun, cluster: Any) -> list[go.Scatter3d]:
    """Return the buffer and the core of one cluster as two traces."""
    atoms = cluster.get_atoms()
    core = atoms.arrays['force_mask'] > 0.5
    gamma = _gamma_in_snapshot(walker, cluster)
    size = np.where(np.arange(len(atoms)) == 0, 16, 10)
    x, y, z = atoms.positions.T
    text = [
        f'atom {parent} of the snapshot<br>γ {value:.2f}'
        for parent, value in zip(atoms.arrays['parent_index'], gamma, strict=True)
    ]
    shared: dict[str, Any] = {'mode': 'markers', 'hovertemplate': '%{text}<extra></extra>'}
    return [
        go.Scatter3d(
            x=x[~core],
            y=y[~core],
            z=z[~core],
            text=[line for line, inside in zip(text, core, strict=True) if not inside],
            name='buffer (force_mask 0)',
            marker={'size': 6, 'color': '#bbbbbb', 'opacity': 0.35},
            **shared,
        ),
        go.Scatter3d(
            x=x[core],
            y=y[core],
            z=z[core],
            text=[line for line, inside in zip(text, core, strict=True) if inside],
            name='core (force_mask 1); the centre is larger',
            marker={
                'size': size[core],
                'color': gamma[core],
                'colorscale': 'YlOrRd',
                'cmin': 0,
                'colorbar': {'title': 'γ'},
                'line': {'color': '#333', 'width': 1},
            },
            **shared,
        ),
    ]


def _gamma_in_snapshot(walker: WalkerRun, cluster: Any) -> Any:
    """Return gamma of the cluster's atoms where they were cut out."""
    frames = walker.md.outputs.snapshots.get_set()  # type: ignore[union-attr]  # a cluster has a run behind it
    row = int(np.flatnonzero(frames.info['step'] == cluster.base.attributes.get('step'))[0])
    return frames[row].arrays['gamma'][cluster.base.attributes.get('parent_index')]


def _series(walker: WalkerRun) -> dict[str, Any] | None:
    if walker.md is None or 'series' not in walker.md.outputs:
        return None
    node = walker.md.outputs.series
    return {name: node.get_array(name) for name in ('step', 'max_gamma', 'temp')}


def _thresholds(history: CampaignHistory) -> list[tuple[float, str]]:
    """Return gamma_select and gamma_break of the walkers, with the dash each is drawn with."""
    runs: list[Round] = list(history.rounds[:1])
    levels = set()
    for walker in runs[0].walkers if runs else ():
        if walker.md is not None:
            settings = walker.md.inputs.md.settings.get_dict()
            levels |= {(settings.get('gamma_select', 2.0), 'dot'), (settings.get('gamma_break', 5.0), 'dash')}
    return sorted(levels)
