"""Is a campaign the same if its daemon is restarted? `python benchmarks/restarts.py [--rounds 5] [--restarts 2]`.

Runs the same campaign twice, each in a profile of its own: eight walkers that halt in every round, as their thresholds
are low. During the second the daemon is stopped and started again at random moments. Compared are, round by round, the
clusters that were chosen and what was learned of them, by their content.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

from ase.build import bulk

from aiida_oodal.operations.profiles import EmbeddedProfile, extend_path

#: Seconds between the begin of the campaign, or the last restart, and a restart.
_PAUSES = (10.0, 90.0)


def build(rounds: int) -> Any:
    """Return the filled builder of a campaign with eight walkers."""
    from aiida.orm import Dict
    from aiida.plugins import CalculationFactory, WorkflowFactory

    from aiida_oodal.calculations.codes import get_engine_code
    from aiida_oodal.data import StructureSetData
    from aiida_oodal.operations.computers import find_computer
    from aiida_oodal.operations.launch import run_once

    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)])
    walkers = {
        f'w{number}': {
            'structure': crystal,
            'settings': {'temperature': [300, 2000 + 200 * number], 'steps': 400, 'velocity_seed': 10 + number},
        }
        for number in range(8)
    }
    return WorkflowFactory('oodal.campaign').get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer('localhost'),
        protocol='quick',
        initial_structures=run_once(CalculationFactory('oodal.make_crystals'), settings=Dict({'count': 10})),
        walkers=walkers,
        overrides={
            'label': {'calculator': {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}},
            'train': {'number_of_functions': 30, 'max_functions': 40},
            'thresholds': {'gamma_select': 1.1, 'gamma_break': 1.3},
            'max_rounds': rounds,
        },
    )


def run(folder: Path, rounds: int, restarts: int, seed: int) -> dict[str, Any]:
    """Run the campaign in a new profile.

    :return: by round the hashes of the clusters that were chosen and of what was trained; how the campaign ended.
    """
    extend_path()
    EmbeddedProfile(folder).load()

    from aiida_oodal.data.content import hash_content
    from aiida_oodal.operations.daemon import start_daemon, stop_daemon
    from aiida_oodal.operations.follow import follow
    from aiida_oodal.operations.launch import submit_process
    from aiida_oodal.workchains.calls import Call, Stage

    dice, left = random.Random(seed), restarts
    start_daemon(2, repair=False)
    try:
        campaign = submit_process(build(rounds))
        due = time.monotonic() + dice.uniform(*_PAUSES)
        for reports in follow(campaign):
            for report in reports:
                print(report, file=sys.stderr, flush=True)
            if left and time.monotonic() > due and not campaign.is_terminated:
                stop_daemon()
                start_daemon(2, repair=False)
                left -= 1
                due = time.monotonic() + dice.uniform(*_PAUSES)
                print(f'the daemon was restarted, {left} left', file=sys.stderr, flush=True)
    finally:
        stop_daemon()
    found: dict[str, Any] = {'restarts': restarts - left, 'exit': campaign.exit_status, 'clusters': {}, 'learned': {}}
    for link in campaign.base.links.get_outgoing().all():
        call = Call.parse(link.link_label)
        if call is not None and call.stage is Stage.LABEL and call.round:
            clusters = link.node.inputs.clusters
            found['clusters'][call.round] = sorted(hash_content(clusters[key]) for key in clusters)
        elif call is not None and call.stage is Stage.TRAIN:
            found['learned'][call.round] = hash_content(link.node.outputs.learned.potential)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--restarts', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)  # one of the two, in a process of its own
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(run(options.folder, options.rounds, options.restarts, options.seed)))
        return
    results = []
    with tempfile.TemporaryDirectory(prefix='oodal-restarts-', ignore_cleanup_errors=True) as folder:
        for name, restarts in (('undisturbed', 0), ('disturbed', options.restarts)):
            command = [sys.executable, __file__, '--folder', str(Path(folder) / name), '--restarts', str(restarts)]
            command += ['--rounds', str(options.rounds), '--seed', str(options.seed)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    undisturbed, disturbed = results
    print(f'restarts of the daemon: {disturbed["restarts"]}; exit codes {undisturbed["exit"]}, {disturbed["exit"]}')
    print('| round | clusters | the same | potential |\n|---|---|---|---|')
    for number in sorted(undisturbed['learned'], key=int):
        chosen, others = (set(result['clusters'].get(number, [])) for result in results)
        learned = 'the same' if disturbed['learned'].get(number) == undisturbed['learned'][number] else 'another'
        print(f'| {number} | {len(chosen)} | {len(chosen & others)} | {learned} |')


if __name__ == '__main__':
    main()
