"""Do campaigns heal, and forget nothing? `python benchmarks/campaigns.py [--materials cuau nial] [--seeds 3]`.

Runs whole campaigns through the daemon, with the defaults of a protocol: an alloy and its elements, a vacancy, a slab,
EMT labels. The first potential knows cold, strained crystals; a walker heats each structure to 1800 K (the slab to
1200 K).
What the potentials are judged by is given to the campaign as `anchors`, which are never trained on: more of the cold
crystals, and snapshots of MD under the labeller at 600, 1200 and 1800 K, each group for itself.

A group holds if its force error at the end is at most 1.2 times that of the first potential, where that was below 30
meV/angstrom, or else at most a half of it. `worst step` is the largest ratio of a potential's error in any group to
that of the potential before it, where the error is above the floor of the guard, 10 meV/angstrom. Errors are force RMSE
in meV/angstrom, mean over seeds; the spread is their standard deviation.

    python benchmarks/campaigns.py --folder runs     # called again it goes on, and does not repeat what is done
    python benchmarks/campaigns.py --action tell     # the guard lets walkers use what is worse on an anchor
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from materials import EMT, Material, make_cuau_with_elements, make_nial

from aiida_oodal.operations.profiles import EmbeddedProfile, extend_path

MATERIALS: dict[str, Callable[[int, int], Material]] = {'cuau': make_cuau_with_elements, 'nial': make_nial}
#: A first error below this, in meV/angstrom, is good, and may rise by the first factor; others fall by the second.
GOOD, KEPT, HALVED = 30.0, 1.2, 0.5
#: Errors up to this, in meV/angstrom, never count as worse than those before: the floor of the guard.
FLOOR = 10.0


def group(material: Material) -> dict[str, list[Atoms]]:
    """Return what a material is judged by, by group."""
    groups: dict[str, list[Atoms]] = {}
    for kind, named in (('cold', material.seen), ('hot', material.kept)):
        for name, atoms in named:
            groups.setdefault(f'{kind}_{name}', []).append(atoms)
    return groups


def judge(errors: Mapping[str, list[float]]) -> dict[str, bool]:
    """Return which groups hold.

    :param errors: of each promoted potential, in their order, by group.
    """
    return {name: each[-1] <= (KEPT if each[0] < GOOD else HALVED) * each[0] for name, each in errors.items()}


def find_worst_step(errors: Mapping[str, list[float]]) -> float:
    """Return the largest ratio of an error above the floor to the one before it; 0 if none is above."""
    steps = [after / before for each in errors.values() for before, after in pairwise(each) if after > FLOOR]
    return max(steps, default=0.0)


def build(material: Material, seed: int, options: argparse.Namespace) -> Any:
    """Return the filled builder of a campaign."""
    from aiida.plugins import WorkflowFactory

    from aiida_oodal.calculations.codes import get_engine_code
    from aiida_oodal.data import StructureSetData
    from aiida_oodal.operations.computers import find_computer

    walkers = {
        f'walker_{number}': {
            'structure': StructureSetData([walker.atoms]),
            'settings': {
                **{key: list(value) if isinstance(value, tuple) else value for key, value in walker.settings.items()},
                'velocity_seed': 1000 * (seed + 1) + number,
            },
        }
        for number, walker in enumerate(material.walkers)
    }
    overrides: dict[str, Any] = {
        'label': {'calculator': EMT},
        'max_rounds': options.rounds,
        'audit': {'whole_atoms': 500},
    }
    if options.action:
        overrides['guard'] = {'action': options.action}
    return WorkflowFactory('oodal.campaign').get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer('localhost'),
        walkers=walkers,
        protocol=options.protocol,
        initial_labels=StructureSetData(material.start),
        anchors={name: StructureSetData(frames) for name, frames in group(material).items()},
        overrides=overrides,
    )


def read_errors(campaign: Any) -> dict[str, list[float]]:
    """Return the force errors of each promoted potential in their order, by group, in meV/angstrom."""
    from aiida_oodal.workchains.calls import Call, Stage

    verdicts = campaign.outputs.guard['rounds']
    children = {}
    for link in campaign.base.links.get_outgoing().all():
        call = Call.parse(link.link_label)
        if call is not None and call.stage in (Stage.TRAIN, Stage.RETRAIN):
            children[call.round, call.stage] = link.node
    errors: dict[str, list[float]] = {}
    for number, verdict in sorted((int(number), verdict) for number, verdict in verdicts.items()):
        if verdict['promoted']:
            train = children.get((number, Stage.RETRAIN)) if verdict['trained_again'] else None
            parts = (train or children[number, Stage.TRAIN]).outputs.results['parts']
            for name in campaign.inputs.anchors:
                errors.setdefault(name, []).append(parts[f'anchor_{name}']['force_rmse'])
    return errors


def run(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one campaign to its end, and return what is known of it as plain values."""
    from aiida_oodal.cli.watch import watch_campaign
    from aiida_oodal.operations.daemon import DaemonKeeper, start_daemon
    from aiida_oodal.operations.launch import submit_once
    from aiida_oodal.report import read_history, write_report

    start_daemon(2, repair=True)
    label = f'{name} {seed}{f" {options.action}" if options.action else ""}'
    campaign = submit_once(label, lambda: build(MATERIALS[name](seed, options.steps), seed, options))
    watch_campaign(campaign, keep_alive=DaemonKeeper(2, print))
    path = options.folder / 'reports' / f'{label.replace(" ", "_")}.html'
    write_report(campaign, path, read_history(campaign))
    labels = campaign.outputs.labels
    return {
        'material': name,
        'seed': seed,
        'exit': campaign.exit_status,
        'message': campaign.exit_message or '',
        'labels': sum(labels[key].n_structures for key in labels if key.startswith('round')),
        'errors': read_errors(campaign),
    }


def report(rows: list[dict[str, Any]]) -> None:
    """Print a table for each material."""
    for name in sorted({row['material'] for row in rows}):
        own = [row for row in rows if row['material'] == name]
        print(f'\n{name}, {len(own)} seeds\n\n| group | first | last | holds |\n|---|---|---|---|')
        for each in own[0]['errors']:
            first, last = (np.array([row['errors'][each][place] for row in own]) for place in (0, -1))
            held = sum(judge(row['errors'])[each] for row in own)
            print(
                f'| {each.replace("_", ", ")} | {first.mean():.1f} ± {first.std():.1f} | '
                f'{last.mean():.1f} ± {last.std():.1f} | {held} of {len(own)} |'
            )
        for row in own:
            ended = 'converged' if row['exit'] == 0 else f'exit code {row["exit"]}: {row["message"]}'
            potentials = len(next(iter(row['errors'].values())))
            print(
                f'\nseed {row["seed"]}: {potentials} potentials, {row["labels"]} labels, worst step '
                f'{find_worst_step(row["errors"]):.2f}, {ended}'
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--materials', nargs='+', choices=MATERIALS, default=list(MATERIALS))
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=1000, help='MD steps of a walker')
    parser.add_argument('--rounds', type=int, default=12, help='rounds at most')
    parser.add_argument('--protocol', default='balanced', choices=['quick', 'balanced', 'careful'])
    parser.add_argument('--action', choices=['keep_anchors', 'refuse', 'tell'], help='of the guard; else its default')
    parser.add_argument('--folder', type=Path, help='home of the profile and of the reports; else a temporary one')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='oodal-campaigns-', ignore_cleanup_errors=True) as temporary:
        options.folder = (options.folder or Path(temporary)).resolve()
        extend_path()
        EmbeddedProfile(options.folder).load()

        from aiida_oodal.operations.daemon import stop_daemon

        rows = []
        try:
            for seed in range(options.seeds):
                for name in options.materials:
                    rows.append(run(name, seed, options))
                    print(json.dumps(rows[-1]), flush=True)
        finally:
            stop_daemon()
        report(rows)


if __name__ == '__main__':
    main()
