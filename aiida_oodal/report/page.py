"""The page of a campaign: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import plotly.io
from aiida.orm import WorkChainNode

from aiida_oodal import __version__

from .figures import draw_clusters, draw_errors, draw_gamma
from .history import CampaignHistory, read_history
from .provenance import trace_potential


def write_report(campaign: WorkChainNode, path: Path) -> Path:
    """Write the report of a campaign, whatever its state, and return its absolute path.

    :param campaign: the process node of a ``CampaignWorkChain``.
    :param path: of the HTML file; its folder is made.
    """
    history = read_history(campaign)
    figures = {'gamma': draw_gamma(history), 'errors': draw_errors(history), 'clusters': draw_clusters(history)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('aiida_oodal', 'templates/report'),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template('campaign.html.j2').render(
        history=history,
        summary=summarise(history),
        chain=trace_potential(campaign.outputs.potential) if 'potential' in campaign.outputs else [],
        clusters=_list_clusters(history),
        plotly=plotly.offline.get_plotlyjs(),
        figures={name: _to_html(figure) for name, figure in figures.items()},
        version=__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding='utf-8')
    return path.resolve()


def summarise(history: CampaignHistory) -> str:
    """Say in a few sentences what happened."""
    if not history.rounds:
        return 'No walker was sent out yet.'
    first, last = history.rounds[0], history.rounds[-1]
    n_clusters = sum(entry.n_labelled for entry in history.rounds)
    n_atoms = sum(entry.labels.n_atoms for entry in history.rounds if entry.labels is not None)
    halts = [walker for walker in first.walkers if walker.outcome != 'COMPLETED' and walker.last_step is not None]
    sentences = []
    if halts:
        earliest = min(halts, key=lambda walker: walker.last_step or 0)
        sentences.append(
            f'The first potential stopped knowing what it does at step {earliest.last_step} of walker '
            f'{earliest.name} (largest gamma {earliest.max_gamma or 0:.1f}).'
        )
    sentences.append(f'{n_clusters} clusters with {n_atoms} atoms were labelled in {len(history.rounds)} rounds.')
    if first.force_rmse is not None and last.force_rmse is not None:
        sentences.append(
            f'The force error on snapshots that were never trained on went from {first.force_rmse:.0f} to '
            f'{last.force_rmse:.0f} meV/Å.'
        )
    if history.healed:
        sentences.append('Now every walker runs to its last step without a halt.')
    return ' '.join(sentences)


def _list_clusters(history: CampaignHistory) -> list[dict[str, Any]]:
    """Return a row for each candidate: where it came from, and what became of it."""
    rows = []
    for entry in history.rounds:
        decisions = entry.selection.get('decisions', {})
        for walker in entry.walkers:
            for key, cluster in walker.clusters.items():
                attributes = cluster.base.attributes
                decision = decisions.get(f'{walker.name}_{key}', {})
                rows.append(
                    {
                        'round': entry.number,
                        'walker': walker.name,
                        'pk': cluster.pk,
                        'step': attributes.get('step', None),
                        'center': attributes.get('center_parent_index'),
                        'gamma': attributes.get('gamma_parent', None),
                        'score': attributes.get('score', None),
                        'second_opinion': attributes.get('second_opinion', None),
                        'n_atoms': len(attributes.get('force_mask')),
                        'n_core': attributes.get('n_core'),
                        'status': cluster.base.extras.get('oodal_queue', {}).get('status', 'not chosen'),
                        'reason': decision.get('reason', ''),
                    }
                )
    return rows


def _to_html(figure: Any) -> str:
    return str(plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, config={'displaylogo': False}))
