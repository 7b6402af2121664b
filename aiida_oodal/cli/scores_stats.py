"""What scores say of every set, as tables in the terminal."""

from __future__ import annotations

import click
from aiida import orm
from rich.console import Console
from rich.table import Table

from aiida_oodal.data import open_ensemble
from aiida_oodal.engine.ood.quadrants import DEFINITION, QUADRANTS, quadrants
from aiida_oodal.engine.ood.score_settings import ReferenceSettings
from aiida_oodal.engine.ood.scores import OodScores
from aiida_oodal.engine.ood.statistics import SetComparison, compare_sets, flag_shares
from aiida_oodal.engine.ood.suspects import leave_out_scores, outliers
from aiida_oodal.workchains.screen import HELDOUT

from .scores_export import latents_by_model


def print_stats(node: orm.WorkChainNode, aggregate: str) -> None:
    """Print for every ensemble, score and set the share above the thresholds, and what the score separates."""
    console = Console(highlight=False)
    for ensemble in sorted(node.outputs.references):
        sets = {
            name: by_ensemble[ensemble].get_scores()
            for name, by_ensemble in sorted(node.outputs.scores.items())
            if ensemble in by_ensemble
        }
        for note in node.outputs.references[ensemble].base.attributes.get('notes'):
            console.print(f'{ensemble}: {note}', markup=False)
        console.print(_table_of(ensemble, _compare(sets, aggregate), aggregate))
        sentences = [row.separation.sentence for row in _compare(sets, aggregate) if row.separation is not None]
        for sentence in sentences:
            console.print(sentence, markup=False, soft_wrap=True)
        if not sentences:
            console.print(
                'There are no scores of held-out structures to compare with: give the ensemble a `heldout` set to see '
                'what a score separates.'
            )
        if counted := _count_quadrants(ensemble, sets):
            console.print(counted)
            console.print(DEFINITION, markup=False)


def _compare(sets: dict[str, OodScores], aggregate: str) -> list[SetComparison]:
    """Compare with the held-out structures, or count only where there are none."""
    if HELDOUT in sets:
        return compare_sets(sets, HELDOUT, aggregate=aggregate)
    rows = []
    for name, scores in sets.items():
        for metric in scores.metrics:
            kind = aggregate if aggregate in scores.per_structure[metric] else 'mean'
            rows.append(SetComparison(name, metric, kind, len(scores), flag_shares(scores, metric, kind), None))
    return sorted(rows, key=lambda row: row.metric)


def _table_of(ensemble: str, rows: list[SetComparison], aggregate: str) -> Table:
    table = Table(title=f'Against {ensemble}, structures by {aggregate} over atoms; [95 % confidence interval]')
    for column in ('score', 'set', 'structures', 'above 90 %', 'above 95 %', 'above 99 %', 'AUROC'):
        table.add_column(column, justify='left' if column in ('score', 'set') else 'right')
    for row in rows:
        shares = [f'{100 * s.share:.1f} % [{100 * s.low:.1f}, {100 * s.high:.1f}]' for s in row.shares]
        area = '' if row.separation is None else f'{row.separation.auroc:.3f}'
        table.add_row(row.metric, row.name, str(row.n), *(text.replace('[', r'\[') for text in shares), area)
    return table


def _count_quadrants(ensemble: str, sets: dict[str, OodScores]) -> Table | None:
    """Count the structures of every set by quadrant; None where a score that it takes is missing."""
    if any(not {'aligned_variance', 'mahalanobis'} <= set(scores.metrics) for scores in sets.values()):
        return None
    table = Table(title=f'Quadrants against {ensemble}')
    table.add_column('set')
    for quadrant in QUADRANTS.values():
        table.add_column(quadrant, justify='right')
    for name, scores in sets.items():
        found = quadrants(scores)
        table.add_row(name, *(str(found.count(quadrant)) for quadrant in QUADRANTS.values()))
    return table


def print_suspects(node: orm.WorkChainNode, limit: int) -> None:
    """Print the structures of each reference set that fit the others least, scored with themselves left out."""
    for ensemble in sorted(node.outputs.references):
        nodes = [shard for shards in latents_by_model(node, ensemble, 'reference').values() for shard in shards]
        settings = ReferenceSettings.load(node.inputs.reference.get_dict()).fit_options()
        with open_ensemble(nodes) as latents:
            scores = leave_out_scores(latents, settings=settings)
        found = [
            (metric, suspect)
            for metric in ('aligned_variance', 'mahalanobis')
            if metric in scores.metrics
            for suspect in outliers(scores.of(metric), metric)
        ]
        click.echo(f'{ensemble}: {len(found)} outliers among {len(scores)} structures of its reference set')
        for metric, suspect in sorted(found, key=lambda entry: -entry[1].z)[:limit]:
            position = int(scores.structure_index[suspect.structure])
            click.echo(f'  structure {position} by {metric}: {suspect.reason}')
