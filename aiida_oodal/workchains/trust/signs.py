"""Signs that a campaign makes no progress, and what to do about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: What reports say of a training that is worse than the one before, and of one that is not used for it.
GOT_WORSE, NOT_PROMOTED = 'is worse than what was learned', 'not promoted; walkers go on'


def count_stuck(before: Mapping[str, int], results: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return by walker how many rounds in a row it has halted at its very first step.

    :param before: the counts of the round before.
    :param results: the output `results` of MD of this round, by walker.
    """
    stuck = [name for name, found in results.items() if found['outcome'] == 'UNCERTAIN' and found['last_step'] == 0]
    return {name: before.get(name, 0) + 1 for name in stuck}


def explain_stuck(counts: Mapping[str, int]) -> list[str]:
    """Return a sentence for each walker that halted at its first step twice in a row."""
    return [
        f'walker {name!r} has halted at its very first step {count} rounds in a row: the clusters that are cut there '
        'do not teach the potential this structure. Label that structure itself, as one of the initial structures, or '
        'cut larger clusters (`radius`, `buffer`)'
        for name, count in counts.items()
        if count >= 2
    ]


def explain_going_on(learned: Iterable[str], pk: int) -> str:
    """Say how a new campaign goes on with what one has learned.

    :param learned: names of what there is: ``potential`` or ``ensemble``.
    :param pk: of the campaign.
    """
    nodes = ''.join(f', `initial_{name}=campaign.outputs.learned.{name}`' for name in learned)
    return (
        f'`aiida-oodal campaign extend {pk}` goes on in a new campaign. In a script: give its builder the arguments of '
        'this one, but in place of the initial ones '
        f'`initial_labels=campaign.outputs.labels`{nodes}. Labels that what was learned was trained on come with it.'
    )


def explain_refused(rounds: Sequence[int], pk: int) -> list[str]:
    """Return a sentence if the training was refused twice in a row.

    :param rounds: since the last promotion.
    :param pk: of the campaign.
    """
    if len(rounds) < 2:
        return []
    return [
        f'what was learned in rounds {", ".join(map(str, rounds))} was refused: walkers meet the same again, which '
        'costs labels. If this goes on, give walkers that lead into the sets that got worse, or let the trainer make a '
        f'larger potential: `aiida-oodal campaign stop {pk}`, then `aiida-oodal campaign extend {pk} --walker '
        'NAME=FILE`, or `--set train.max_functions=N`; with `--set guard.action=tell` walkers use what was refused'
    ]


def explain_failures(failures: Mapping[str, str], n_labelled: int) -> list[str]:
    """Return sentences about structures of a round that have no label, and what to do if that is at least half of them.

    :param failures: why structures have none, by their key.
    :param n_labelled: how many have one.
    """
    if not failures:
        return []
    share = f'{len(failures)} of {len(failures) + n_labelled} structures have no label'
    first = f'{share}; the first: {next(iter(failures.values()))}'
    if len(failures) < n_labelled:
        return [first]
    return [
        first,
        f'{share}: the labeller cannot compute what the walkers find. See `aiida-oodal queue list --status FAILED`; '
        'what waits again after `aiida-oodal queue retry` is asked for in the next round',
    ]


def explain_rise(errors: Sequence[float]) -> list[str]:
    """Return a sentence if the error rose twice in a row.

    :param errors: force RMSE on the validation set of what was promoted, in its order, meV/angstrom.
    """
    if len(errors) < 3 or not errors[-3] < errors[-2] < errors[-1]:
        return []
    last = ', '.join(f'{error:.1f}' for error in errors[-3:])
    return [
        f'the force error on the validation set rose twice in a row ({last} meV/angstrom): more labels do not help. '
        'Let the trainer make a larger potential (see its settings), or look at the labels of the last rounds'
    ]
