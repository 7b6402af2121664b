"""The page of a campaign: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida.orm import WorkChainNode

from aiida_oodal import __version__
from aiida_oodal.templates import get_template

from .history import CampaignHistory, read_history
from .left import read_left
from .provenance import Link, trace_potential


def write_report(campaign: WorkChainNode, path: Path, history: CampaignHistory | None = None) -> Path:
    """Write the report of a campaign, whatever its state, and return its absolute path.

    :param campaign: the process node of a ``CampaignWorkChain``.
    :param path: of the HTML file; its folder is made.
    :param history: of the campaign, if it was read already.
    """
    # plotly and ase: whoever only reads the history of a campaign does without them
    from plotly.offline import get_plotlyjs

    from .about import describe_campaign, list_errors
    from .calibration import SHOWN, draw_calibration, list_calibrations
    from .failures import read_failures
    from .figures import choose_clusters, choose_rounds, draw_clusters, draw_errors, draw_gamma
    from .ledger import list_processes, read_ledger
    from .methods import write_methods
    from .picture import draw_provenance

    history = history or read_history(campaign)
    processes = list_processes(campaign)
    ledger = read_ledger(campaign, history, processes)
    chain = _trace(campaign)
    figures = {
        'errors': draw_errors(history),
        'calibration': draw_calibration(history),
        'clusters': draw_clusters(history),
    }
    elements, trainings, errors = list_errors(history)
    page = get_template('report/campaign.html.j2').render(
        history=history,
        label=campaign.label,
        about=describe_campaign(campaign, history),
        validated='validation' in campaign.inputs,
        elements=elements,
        trainings=trainings,
        errors=errors,
        shown=SHOWN,
        calibrations=list_calibrations(history),
        summary=summarise(history),
        chain=chain,
        picture=draw_provenance(chain),
        clusters=_list_clusters(history),
        ledger=ledger,
        failures=read_failures(campaign, processes),
        methods=write_methods(campaign, history, ledger, processes),
        # Their tools would lie on their titles where there is no mouse.
        gamma=[
            _to_html(f'gamma-{number}', figure, tools=False)
            for number, figure in enumerate(draw_gamma(history).values())
        ],
        drawn=len(choose_rounds(history)),
        drawn_clusters=len(choose_clusters(history)),
        n_labelled=sum(len(entry.labelled) for entry in history.rounds),
        plotly=get_plotlyjs(),
        figures={name: _to_html(name, figure) for name, figure in figures.items()},
        version=__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding='utf-8')
    return path.resolve()


def _trace(campaign: WorkChainNode) -> list[Link]:
    """Return the labels of the last potential, or of the first model of the last ensemble, and what led to each."""
    learned = read_left(campaign).learned
    model = learned.get('potential') or next(iter(learned.get('ensemble', {}).get('models', {}).values()), None)
    return [] if model is None else trace_potential(model)


def summarise(history: CampaignHistory) -> str:
    """Say in a few sentences what happened."""
    if not history.rounds:
        return f'No walker was sent out yet. {history.left}'.strip()
    first, last = history.rounds[0], history.rounds[-1]
    n_clusters = sum(entry.n_labelled for entry in history.rounds)
    n_atoms = sum(entry.labels.n_atoms for entry in history.rounds if entry.labels is not None)
    halts = [walker for walker in first.walkers if walker.outcome != 'COMPLETED' and walker.last_step is not None]
    sentences = []
    if halts:
        earliest = min(halts, key=lambda walker: walker.last_step or 0)
        sentences.append(
            f'The first potential left the range of its training data at step {earliest.last_step} of walker '
            f'{earliest.name} (largest gamma {earliest.max_gamma or 0:.1f}).'
        )
    n_rounds = sum(entry.n_labelled > 0 for entry in history.rounds)
    rounds = '1 round' if n_rounds == 1 else f'{n_rounds} rounds'
    sentences.append(f'{n_clusters} clusters with {n_atoms} atoms were labelled in {rounds}.')
    errors = {entry.number: entry.force_rmse for entry in history.rounds if entry.force_rmse is not None}
    if first.force_rmse is not None and last.force_rmse is not None:
        worst = max(errors, key=lambda number: errors[number])
        between = f', and was {errors[worst]:.0f} in round {worst}' if errors[worst] > first.force_rmse else ''
        sentences.append(
            f'The force RMSE on structures that were never trained on went from {first.force_rmse:.0f} to '
            f'{last.force_rmse:.0f} meV/Å{between}.'
        )
    if any(entry.audit for entry in history.rounds):
        sentences.append(_summarise_audits(history))
    if history.left:
        sentences.append(history.left)
    if history.healed:
        reason = history.end.get('reason', 'every walker runs to its last step without a halt')
        sentences.append(f'Now it has converged: {reason}.')
    return ' '.join(sentences)


def _summarise_audits(history: CampaignHistory) -> str:
    """Say how many structures audits had labelled, and what the last one found."""
    audited = [entry for entry in history.rounds if entry.audit]
    n_labels = sum(entry.audit_labels.n_structures for entry in audited if entry.audit_labels is not None)
    failed = sum(not entry.passed for entry in audited)
    errors = [frame['force_rmse'] for verdict in audited[-1].audit.values() for frame in verdict['frames']]
    right = f'; where they ended the force RMSE of a frame is at most {max(errors):.0f} meV/Å' if errors else ''
    times = f', and {failed} of {len(audited)} audits found the potential wrong' if failed else ''
    return f'{n_labels} structures were labelled to audit walkers that had run to their end{times}{right}.'


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


def _to_html(name: str, figure: Any, *, tools: bool = True) -> str:
    import plotly.io

    config = {'displaylogo': False, 'responsive': True} | ({} if tools else {'displayModeBar': False})
    # a name of its own each: plotly's would be another in every copy of the same page
    page = plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, config=config, div_id=f'figure-{name}')
    return str(page)
