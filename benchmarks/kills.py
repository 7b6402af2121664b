"""Two drainers label the same queue while something is killed with -9 every few seconds: what is lost or paid twice.

    python benchmarks/kills.py --kills 100

Puts ``--entries`` structures into the queue of a profile in a temporary folder, starts two ``aiida-oodal queue label``
at once, and kills at random moments one of: a worker, all workers, circus with the broker, a job, a drainer. Where the
broker was killed ``aiida-oodal doctor --fix`` mends it, as its users do. When all entries have their label and kills
are left, as many new ones are put in. Each structure takes ``--seconds`` and writes a line when its label is there.

Printed are the entries without a label (lost), those that more than one job brought a label for (paid twice), and how
often calculators ran: more often than there are labels only for what was in hand in jobs that were killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

#: Kills between two looks at the database, each of which takes seconds.
_BETWEEN_COUNTS = 4
BIN = Path(sys.executable).parent
CALCULATOR = """
import os, time
from ase.calculators.emt import EMT

class SlowEmt(EMT):
    def calculate(self, atoms=None, properties=('energy',), system_changes=('positions',)):
        super().calculate(atoms, properties, system_changes)
        time.sleep({seconds})
        with open({log!r}, 'a') as file:
            file.write(f'{{atoms.positions[1, 0]:.6f}}\\n')
"""
FILL = """
import sys
from aiida import load_profile, orm
load_profile()
from ase.build import bulk
from aiida_oodal.queue import enqueue
first, count = map(int, sys.argv[1:])
nodes = []
for number in range(first, first + count):
    atoms = bulk('Cu', cubic=True)
    atoms.positions[1, 0] += 1e-4 * number
    nodes.append(orm.StructureData(ase=atoms).store())
enqueue(nodes, None)
"""
COUNT = """
import json
from aiida import load_profile, orm
load_profile()
from aiida_oodal.queue import count_entries
status = {str(status): count for status, count in count_entries().items()}
alive = orm.QueryBuilder().append(orm.ProcessNode, filters={
    'attributes.process_state': {'in': ['created', 'waiting', 'running']}}).count()
print(json.dumps({'entries': sum(status.values()), 'labelled': status['LABELLED'], 'alive': alive, 'status': status}))
"""
#: How many entries more than one job brought a label for: reads the labels of every job, once, at the end.
COUNT_TWICE = """
import json
from collections import Counter
from aiida import load_profile, orm
load_profile()
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.queue import QueueStatus, find_entries
brought = Counter()
for job in orm.QueryBuilder().append(LabelCalculation).all(flat=True):
    if 'labels' in job.outputs:
        brought.update(job.outputs.labels.get_set().info['queue_key'].tolist())
print(json.dumps(sum(brought[entry.key] > 1 for entry in find_entries(QueueStatus.LABELLED))))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--entries', type=int, default=200)
    parser.add_argument('--batch-size', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=1.0)
    parser.add_argument('--pause', type=float, default=8.0, help='Seconds between two kills at most.')
    parser.add_argument('--minutes', type=float, default=120.0, help='No more kills after so many minutes.')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='oodal-kills-', ignore_cleanup_errors=True) as folder:
        trial = Trial(Path(folder), arguments)
        try:
            trial.run()
        finally:
            trial.end()


class Trial:
    """One profile, its daemon and its drainers."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self.random = random.Random(arguments.seed)
        self.log = folder / 'labelled'
        (folder / '.aiida').mkdir()
        (folder / 'calculator').mkdir()
        text = CALCULATOR.format(seconds=arguments.seconds, log=str(self.log))
        (folder / 'calculator' / 'slow_emt.py').write_text(text)
        path = f'{BIN}:{os.environ["PATH"]}'
        self.environment = {**os.environ, 'AIIDA_PATH': str(folder), 'HOME': str(folder), 'PATH': path}
        self.environment['OMP_NUM_THREADS'] = '1'
        self.drainers: list[subprocess.Popen[bytes]] = []
        self.kills: Counter[str] = Counter()

    def run(self) -> None:
        """Fill, drain, kill, and count."""
        arguments = self.arguments
        self.call('aiida-oodal', 'setup', 'profile')
        options = ['--preset', 'local', '--venv', sys.prefix, '--poll-interval', '0.5']
        self.call('aiida-oodal', 'setup', 'computer', *options, '--work-dir', str(self.folder / 'run'))
        self.call('verdi', 'daemon', 'start', '2')
        begin, number, left = time.monotonic(), 0, True
        while left:
            self.call('python', '-c', FILL, str(number), str(arguments.entries))
            number += arguments.entries
            self.drainers = [self.drain(), self.drain()]
            while not self.count()['alive'] and any(drainer.poll() is None for drainer in self.drainers):
                time.sleep(1.0)  # until one has submitted: before that there is nothing to lose
            while (found := self.count())['labelled'] < number:
                in_time = time.monotonic() - begin < 60 * arguments.minutes
                left = in_time and self.kills.total() < arguments.kills
                for _ in range(min(_BETWEEN_COUNTS, arguments.kills - self.kills.total()) if left else 0):
                    time.sleep(self.random.uniform(0.5, arguments.pause))
                    if self.kill() == 'broker':
                        self.call('aiida-oodal', 'doctor', '--fix', expect=None)
                if not left:
                    self.call('aiida-oodal', 'doctor', '--fix', expect=None)
                # Drainers whose process was ended, or that were killed before they had submitted one.
                if found['status'].get('PENDING_DFT') and not found['alive']:
                    self.drainers.append(self.drain())
                print(f'{time.monotonic() - begin:6.0f} s  {self.kills.total()} kills  {found}', flush=True)
            left = left and self.kills.total() < arguments.kills
        found, twice = self.count(), self.ask(COUNT_TWICE)
        runs = len(self.log.read_text().split())
        print(f'{self.kills.total()} kills ({", ".join(f"{n} {name}" for name, n in sorted(self.kills.items()))})')
        print(f'{found["entries"]} entries: {found["entries"] - found["labelled"]} lost, {twice} paid twice')
        print(
            f'calculators ran {runs} times for {found["labelled"]} labels: the others ended with jobs that were killed'
        )

    def call(self, *command: str, expect: int | None = 0) -> str:
        """Return what a command of the environment prints."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        if expect is not None and done.returncode != expect:
            raise SystemExit(f'{command} ended with {done.returncode}: {done.stdout}{done.stderr}')
        return done.stdout

    def count(self) -> dict[str, Any]:
        """Return what the database says."""
        found: dict[str, Any] = self.ask(COUNT)
        return found

    def ask(self, script: str) -> Any:
        """Return what a script prints as JSON."""
        return json.loads(self.call('python', '-c', script).splitlines()[-1])

    def drain(self) -> subprocess.Popen[bytes]:
        """Start a drainer."""
        prepend = f'export PYTHONPATH={self.folder / "calculator"}'
        command = [str(BIN / 'aiida-oodal'), 'queue', 'label', '--with', 'oodal.label.ase']
        command += ['--set', 'calculator.calculator=slow_emt:SlowEmt', '--set', 'max_attempts=3']
        command += ['--set', f'batch_size={self.arguments.batch_size}', '--option', f'prepend_text={prepend}']
        with (self.folder / 'drainers').open('ab') as log:
            return subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=log, stderr=log)

    def kill(self) -> str:
        """Kill one kind of what is there, and return which."""
        targets = {
            'worker': self.processes('daemon', 'worker')[:1],
            'workers': self.processes('daemon', 'worker'),
            'broker': [*self.processes('daemon', 'start-circus'), *self.processes('aiida.brokers.zeromq.service')],
            'job': self.processes('_aiidasubmit.sh')[-1:],
            'drainer': [psutil.Process(drainer.pid) for drainer in self.drainers if drainer.poll() is None][:1],
        }
        names = [name for name, processes in targets.items() if processes]
        if not names:  # all was killed, and is not back yet
            return ''
        name = self.random.choice(names)
        for process in targets[name]:
            family = process.children(recursive=True) if name == 'job' else []
            for member in [process, *family]:
                try:
                    member.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
        self.kills[name] += 1
        return name

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the processes of this profile that have all these words in their command line."""
        found = []
        for process in psutil.process_iter(['environ', 'cmdline']):
            environ, command = process.info['environ'] or {}, process.info['cmdline'] or []
            # The daemon names the folder in it that AiiDA made.
            if environ.get('AIIDA_PATH', '').startswith(str(self.folder)) and set(words) <= set(command):
                found.append(process)
        return found

    def end(self) -> None:
        """End what is still there."""
        for process in self.processes():
            process.kill()


if __name__ == '__main__':
    main()
