"""What scores say of every set, as tables in the terminal."""

from __future__ import annotations

import click
import numpy as np
from aiida import orm
from rich.console import Console
from rich.table import Table

from aiida_oodal.data import StructureSetData, open_ensemble
from aiida_oodal.engine.ood.quadrants import DEFINITION, QUADRANTS, quadrants
from aiida_oodal.engine.ood.score_settings import ReferenceSettings
from aiida_oodal.engine.ood.scores import OodScores
from aiida_oodal.engine.ood.statistics import SetComparison, compare_sets, flag_shares
from aiida_oodal.engine.ood.suspects import Suspect, leave_out_scores, outliers, suspect_labels
from aiida_oodal.engine.ood.table import score_table
from aiida_oodal.report.screen_view import evaluated_structures, true_errors
from aiida_oodal.workchains.screen import HELDOUT

from .scores_export import latents_by_model, targets_of

#: Scores by which a structure of a reference set is a suspect.
_JUDGED = ('aligned_variance', 'mahalanobis')


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
        if counted := _count_quadrants(ensemble, sets, aggregate):
            console.print(counted)
            console.print(DEFINITION, markup=False)
    if len(node.outputs.references) > 1:
        _print_out_for_all(console, node, aggregate)


def _print_out_for_all(console: Console, node: orm.WorkChainNode, aggregate: str) -> None:
    """Print how many structures of each target are out whatever the reference."""
    for target in targets_of(node):
        against = {name: data.get_scores() for name, data in sorted(node.outputs.scores[target].items())}
        out = score_table(against, aggregate=aggregate)['out_for_all']
        names = ', '.join(against)
        console.print(
            f'{target}: {sum(out)} of {len(out)} structures are out for every reference ({names}): the models disagree '
            'about them, or they are far',
            markup=False,
            soft_wrap=True,
        )


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


def _count_quadrants(ensemble: str, sets: dict[str, OodScores], aggregate: str) -> Table | None:
    """Count the structures of every set by quadrant; None where a score that it takes is missing."""
    if any(not {'aligned_variance', 'mahalanobis'} <= set(scores.metrics) for scores in sets.values()):
        return None
    table = Table(title=f'Quadrants against {ensemble}, by {aggregate} over atoms')
    table.add_column('set')
    for quadrant in QUADRANTS.values():
        table.add_column(quadrant, justify='right')
    for name, scores in sets.items():
        found = quadrants(scores, aggregate=aggregate)
        table.add_row(name, *(str(found.count(quadrant)) for quadrant in QUADRANTS.values()))
    return table


def print_suspects(node: orm.WorkChainNode, limit: int) -> None:
    """Print the structures of each reference set that fit the others least, scored with themselves left out.

    Where the set has forces as labels and the models' forces were asked for, also those whose error is much larger than
    the disagreement of the models explains.
    """
    for ensemble in sorted(node.outputs.references):
        nodes = [shard for shards in latents_by_model(node, ensemble, 'reference').values() for shard in shards]
        options = ReferenceSettings.load(node.inputs.reference.get_dict()).fit_options()
        # A reference is fitted for every fold: only to what is looked at.
        settings = {**options, 'metrics': _JUDGED}
        given = node.inputs.ensembles[ensemble].get('reference')
        structures = given if isinstance(given, StructureSetData) else evaluated_structures(nodes)
        with open_ensemble(nodes) as latents:
            scores = leave_out_scores(latents, settings=settings)
            errors = true_errors(latents, structures).get('force')
        found: list[tuple[str, Suspect]] = [
            (metric, suspect) for metric in scores.metrics for suspect in outliers(scores.of(metric), metric)
        ]
        if errors is not None:
            rms = np.sqrt(np.add.reduceat(errors**2, scores.offsets[:-1]) / np.diff(scores.offsets))
            found += [('its label', suspect) for suspect in suspect_labels(scores, rms)]
        click.echo(f'{ensemble}: {len(found)} outliers among {len(scores)} structures of its reference set')
        if errors is None:
            click.echo('  labels were not looked at: that needs REF_forces in the set and `latents: {forces: true}`')
        for metric, suspect in sorted(found, key=lambda entry: -entry[1].z)[:limit]:
            position = int(scores.structure_index[suspect.structure])
            click.echo(f'  structure {position} by {metric}: {suspect.reason}')
