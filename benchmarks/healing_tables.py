"""The tables that the benchmark of healing prints of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

#: Of the first potential's error.
SHARES = {'half': 0.5, 'quarter': 0.25}
#: Tolerances of the audit to compare, meV/angstrom.
TOLERANCES = (25, 50, 100, 200, 400)
#: Keys of a row.
ANCHORS, LAST = 'anchors', 'last frames'


def atoms_to(row: Mapping[str, Any], share: float) -> float:
    """Return the labelled atoms after which the force error is below a share of the first, or nan."""
    limit = share * row['curve'][0][1]
    return next((float(n_atoms) for n_atoms, error in row['curve'] if error <= limit), float('nan'))


def is_healed(row: Mapping[str, Any], tolerance: float) -> bool:
    return row['n_finished'] == row['n_walkers'] and max(row[LAST]) <= tolerance


def title(row: Mapping[str, Any]) -> str:
    """Return material and family of a row."""
    return f'{row["material"]}, {row["family"]}'


def spread(values: Iterable[float], form: str = '.0f') -> str:
    """Write mean and standard deviation, of how many if not of all."""
    given = list(values)
    finite = [value for value in given if np.isfinite(value)]
    if not finite:
        return '-'
    text = f'{np.mean(finite):{form}} ± {np.std(finite):{form}}'
    return text if len(finite) == len(given) else f'{text} ({len(finite)} of {len(given)})'


def report(rows: Sequence[Mapping[str, Any]], tolerance: float) -> None:
    """Print a table for each material, in Markdown, and how gamma compares with what else can be labelled."""
    titles = ('healed', 'rounds', 'labelled atoms', 'to a half', 'to a quarter', 'forces', 'by element', 'energies')
    titles += (ANCHORS, LAST, 'CPU of labels (s)', 'CPU (s)')
    for material in dict.fromkeys(map(title, rows)):
        own = [row for row in rows if title(row) == material]
        first = {row['seed']: row['first'] for row in own}.values()
        print(
            f'\n{material}, {len(first)} seeds; first potential: forces {spread(each["force"] for each in first)}, '
            f'energies {spread((each["energy"] for each in first), ".1f")}, anchors '
            f'{spread((each[ANCHORS] for each in first), ".1f")}\n'
        )
        print('| strategy | ' + ' | '.join(titles) + ' |')
        print('|---' * (1 + len(titles)) + '|')
        for strategy in dict.fromkeys(row['strategy'] for row in own):
            runs = [row for row in own if row['strategy'] == strategy]
            print(f'| {strategy} | ' + ' | '.join(cells(runs, tolerance)) + ' |')
    print_ratios(rows)
    print_audits(rows)


def cells(runs: Sequence[Mapping[str, Any]], tolerance: float) -> list[str]:
    """Return one line of a table."""
    ends = [row['end'] for row in runs]
    healed = sum(is_healed(row, tolerance) for row in runs)
    finished = sum(row['n_finished'] == row['n_walkers'] for row in runs)
    failed = sum(row['n_failed'] for row in runs)
    worse = sum(ANCHORS in row['worsened'] for row in runs)
    return [
        f'{healed} of {len(runs)}' + (f' ({finished} finish)' if finished != healed else ''),
        spread((row['rounds'] for row in runs), '.1f'),
        spread(row['n_atoms'] for row in runs) + (f', {failed} labels failed' if failed else ''),
        *(spread(atoms_to(row, share) for row in runs) for share in SHARES.values()),
        spread((end['force'] for end in ends), '.1f'),
        ', '.join(f'{name} {np.mean([end["by_element"][name] for end in ends]):.0f}' for name in ends[0]['by_element']),
        spread((end['energy'] for end in ends), '.1f'),
        spread((end[ANCHORS] for end in ends), '.1f') + (f', worse in {worse}' if worse else ''),
        spread(max(row[LAST]) for row in runs),
        spread((row['label_seconds'] for row in runs), '.1f'),
        spread(row['seconds'] for row in runs),
    ]


def print_ratios(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what gamma needs as a share of what others need, seed by seed where both get there."""
    pairs = [('gamma, full', 'random, full'), ('gamma, mask', 'random, mask')]
    pairs += [('gamma, full', 'whole cells'), ('gamma, full', '8 atoms'), ('gamma, full', 'farthest, full')]
    print('\nlabelled atoms that the first needs as a share of what the second needs: mean over seeds (worst)\n')
    print('| material | error | ' + ' | '.join(f'{one} : {other}' for one, other in pairs) + ' |')
    print('|---' * (2 + len(pairs)) + '|')
    for material in dict.fromkeys(map(title, rows)):
        found = {(row['strategy'], row['seed']): row for row in rows if title(row) == material}
        for name, share in SHARES.items():
            line = []
            for one, other in pairs:
                both = [seed for strategy, seed in found if strategy == one and (other, seed) in found]
                needs = np.array([[atoms_to(found[each, seed], share) for each in (one, other)] for seed in both])
                ratios = (needs[:, 0] / needs[:, 1])[np.isfinite(needs).all(axis=1)] if both else np.array([])
                lost = [int(np.isnan(needs[:, side]).sum()) if both else 0 for side in (0, 1)]
                text = f'{ratios.mean():.2f} ({ratios.max():.2f})' if ratios.size else '-'
                notes = [
                    f'{who} {count} times not there' for who, count in zip(('1st', '2nd'), lost, strict=True) if count
                ]
                line.append('; '.join([text, *notes]))
            print(f'| {material} | a {name} | ' + ' | '.join(line) + ' |')


def print_audits(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what an audit with other tolerances would let through: runs in which all walkers finish."""
    ended = [row for row in rows if row['n_finished'] == row['n_walkers']]
    print('\nruns in which all walkers finish that pass the audit, and their force error on snapshots: mean (worst)\n')
    print('| material | finish | ' + ' | '.join(f'{tolerance} meV/angstrom' for tolerance in TOLERANCES) + ' |')
    print('|---' * (2 + len(TOLERANCES)) + '|')
    for material in dict.fromkeys(map(title, ended)):
        own = [row for row in ended if title(row) == material]
        line = []
        for tolerance in TOLERANCES:
            errors = [row['end']['force'] for row in own if max(row[LAST]) <= tolerance]
            line.append(f'{len(errors)}: {np.mean(errors):.0f} ({max(errors):.0f})' if errors else '0')
        print(f'| {material} | {len(own)} | ' + ' | '.join(line) + ' |')
