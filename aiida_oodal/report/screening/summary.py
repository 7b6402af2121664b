"""Print the scores of every set as tables in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import click
import numpy as np
from aiida import orm
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from aiida_oodal.data import StructureSetData, open_ensemble
from aiida_oodal.engine.analysis.quadrants import DEFINITION, QUADRANTS, flag_judges, quadrants
from aiida_oodal.engine.analysis.statistics import (
    SetComparison,
    compare_sets,
    find_contradictions,
    flag_shares,
    wilson_interval,
)
from aiida_oodal.engine.analysis.suspects import Suspect, leave_out_scores, outliers, suspect_labels
from aiida_oodal.engine.analysis.table import score_table
from aiida_oodal.engine.ood.fitting import FitOptions
from aiida_oodal.engine.ood.looks import EITHER, JUDGES
from aiida_oodal.engine.ood.metrics import CONTRASTED
from aiida_oodal.engine.ood.scores import OodScores
from aiida_oodal.workchains.screen_inputs import HELDOUT

from .files import latents_by_model, targets_of
from .graph import evaluated_structures, true_errors

#: Sets that stand side by side in a table of 80 columns.
_SETS_BESIDE = 3


def print_stats(node: orm.WorkChainNode, aggregate: str = EITHER, *, everything: bool = False) -> None:
    """Print for every ensemble and set how many structures are out, why, and what each score separates.

    :param aggregate: from atoms to structures.
    :param everything: whether every score is printed with its shares above all thresholds, and their intervals.
    """
    console = Console(highlight=False)
    for ensemble in sorted(node.outputs.references):
        sets = {
            name: by_ensemble[ensemble].get_scores()
            for name, by_ensemble in sorted(node.outputs.scores.items())
            if ensemble in by_ensemble
        }
        compared = _compare(sets, aggregate)
        console.rule(f'Against {ensemble}', align='left')
        for note in node.outputs.references[ensemble].base.attributes.get('notes'):
            console.print(f'Note: {note}.', markup=False)
        console.print(_verdicts(sets, aggregate))
        _print_sentences(console, sets, compared)
        console.print()
        targets = [name for name in sets if name != HELDOUT]
        for start in range(0, len(targets), _SETS_BESIDE):
            console.print(_side_by_side(compared, targets[start : start + _SETS_BESIDE]))
        if everything:
            for name in sets:
                console.print(_all_of(name, [row for row in compared if row.name == name]))
    console.print(DEFINITION, markup=False)
    if len(node.outputs.references) > 1:
        _print_out_for_all(console, node, aggregate)


def _verdicts(sets: Mapping[str, OodScores], aggregate: str) -> Table:
    """Count the structures of every set that are out, and why."""
    table = Table(box=SIMPLE_HEAD, title='Out: disagreement or distance above its 95 % threshold', title_justify='left')
    table.add_column('set', overflow='fold')
    for column in ('structures', 'out', '95 % interval', 'disagree', 'far', *list(QUADRANTS.values())[1:]):
        table.add_column(_WORDS.get(column, column), justify='right')
    for name, scores in sets.items():
        flags = flag_judges(scores, aggregate)
        out = np.any(list(flags.values()), axis=0) if flags else scores.flags(*scores.verdict)
        low, high = wilson_interval(int(np.count_nonzero(out)), len(scores))
        named = quadrants(scores, aggregate=aggregate)
        judged = [str(np.count_nonzero(flags[judge])) if judge in flags else '-' for judge in JUDGES]
        counts = ['-' if named is None else str(named.count(each)) for each in list(QUADRANTS.values())[1:]]
        interval = f'{100 * low:.0f}-{100 * high:.0f} %'
        table.add_row(name, str(len(scores)), str(np.count_nonzero(out)), interval, *judged, *counts)
    return table


#: Headers that are too long for a column.
_WORDS = {
    'structures': 'n',
    'disagree': 'models\ndisagree',
    'confident novelty': 'confid.\nnovelty',
    'hidden danger': 'hidden\ndanger',
}


def _print_sentences(console: Console, sets: Mapping[str, OodScores], compared: Sequence[SetComparison]) -> None:
    """Say what the verdict separates, and where scores contradict each other."""
    main = compared[0].metric if compared else ''
    sentences = [row.separation.sentence for row in compared if row.separation is not None and row.metric == main]
    for name, scores in sets.items():
        if name != HELDOUT:
            found = find_contradictions(scores.count_flagged(CONTRASTED), len(scores))
            sentences += [f'{name}: {sentence}' for sentence in found]
    if HELDOUT not in sets:
        sentences.append(
            'There are no scores of held-out structures to compare with: give the ensemble a `heldout` set to see what '
            'a score separates'
        )
    for sentence in sentences:
        console.print(f'{sentence}.', markup=False)


def _side_by_side(compared: Sequence[SetComparison], names: Iterable[str]) -> Table:
    """Show for each score the share of some sets above the 95 % threshold, and the AUROC against the held-out set."""
    wanted = list(names)
    found = {(row.metric, row.name): row for row in compared}
    table = Table(box=SIMPLE_HEAD, title='Share above the 95 % threshold, and AUROC [interval]', title_justify='left')
    table.add_column('score')
    for name in wanted:
        table.add_column(name, justify='right', overflow='fold')
    for metric in dict.fromkeys(row.metric for row in compared):
        cells = []
        for name in wanted:
            row = found[metric, name]
            area = row.separation
            text = '' if area is None else f' {area.auroc:.2f} \\[{area.low:.2f}-{area.high:.2f}]'
            cells.append(f'{100 * row.shares[1].share:.0f} %{text}')
        kind = next(row.aggregate for row in compared if row.metric == metric)
        table.add_row(_name(metric, kind), *cells)
    return table


def _name(metric: str, aggregate: str) -> str:
    return metric if aggregate == EITHER else f'{metric} ({aggregate})'


def _all_of(name: str, compared: Sequence[SetComparison]) -> Table:
    """Show for each score the shares of a set above all thresholds, with intervals."""
    table = Table(
        box=SIMPLE_HEAD,
        title=f'{name}: % above thresholds \\[95 % interval]',
        title_justify='left',
        padding=(0, 1, 0, 0),
    )
    table.add_column('score')
    for column in ('90 %', '95 %', '99 %', 'AUROC'):
        table.add_column(column, justify='right')
    for row in compared:
        shares = [f'{100 * s.share:.0f} \\[{100 * s.low:.0f}-{100 * s.high:.0f}]' for s in row.shares]
        area = row.separation
        text = '' if area is None else f'{area.auroc:.2f} \\[{area.low:.2f}-{area.high:.2f}]'
        table.add_row(_name(row.metric, row.aggregate), *shares, text)
    return table


def _print_out_for_all(console: Console, node: orm.WorkChainNode, aggregate: str) -> None:
    """Print how many structures of each target are out whatever the reference."""
    for target in targets_of(node):
        against = {name: data.get_scores() for name, data in sorted(node.outputs.scores[target].items())}
        out = score_table(against, aggregate=aggregate)[0]['out_for_all']
        names = ', '.join(against)
        console.print(
            f'{target}: {sum(out)} of {len(out)} structures are out for every reference ({names}): the models disagree '
            'about them, or they are far.',
            markup=False,
        )


def _compare(sets: dict[str, OodScores], aggregate: str) -> list[SetComparison]:
    """Compare with the held-out structures, or count only where there are none; the verdict first."""
    if HELDOUT in sets:
        rows = compare_sets(sets, HELDOUT, aggregate=aggregate)
    else:
        rows = []
        for name, scores in sets.items():
            for metric, kinds in scores.per_structure.items():
                kind = aggregate if aggregate in kinds else next(iter(kinds))
                rows.append(SetComparison(name, metric, kind, len(scores), flag_shares(scores, metric, kind), None))
    first = next(iter(sets.values()))
    order = [first.verdict[0], *JUDGES, *first.metrics]
    return sorted(rows, key=lambda row: (row.metric == 'variance', order.index(row.metric)))


def print_suspects(node: orm.WorkChainNode, limit: int) -> None:
    """Print the structures of each reference set that fit the others least, scored with themselves left out.

    Where the set has forces as labels and the models' forces were asked for, also those whose error is much larger than
    the disagreement of the models explains.
    """
    for ensemble in sorted(node.outputs.references):
        nodes = [shard for shards in latents_by_model(node, ensemble, 'reference').values() for shard in shards]
        # A reference is fitted for every fold: only to what is looked at.
        settings = node.inputs.reference.get_dict()
        given = node.inputs.ensembles[ensemble].get('reference')
        structures = given if isinstance(given, StructureSetData) else evaluated_structures(nodes)
        with open_ensemble(nodes) as latents:
            judged = [name for name in JUDGES if name in (FitOptions().for_models(latents.n_models).metrics or ())]
            scores = leave_out_scores(latents, settings=settings | {'metrics': judged})
            errors = true_errors(latents, structures).get('force')
        found: list[tuple[str, Suspect]] = [
            (metric, suspect) for metric in judged for suspect in outliers(scores.of(metric), metric)
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
