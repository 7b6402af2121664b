"""An installation as its user makes it: commands in a shell, in a home of its own."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BIN = Path(sys.executable).parent
#: Prints the path of every call below the campaign, by the names of the links, and how often clusters were labelled.
ASK = """
import json, sys
from aiida import load_profile, orm
from aiida.common.links import LinkType
load_profile()
def did_something(node):
    return node.is_finished or node.base.attributes.get('job_id', None) is not None
def walk(node, path):
    for link in node.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all():
        if did_something(link.node):
            yield f'{path}/{link.link_label}'
            yield from walk(link.node, f'{path}/{link.link_label}')
query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'label': 'small: campaign'})
(campaign,) = query.all(flat=True)
labelled = []
for job in campaign.called_descendants:
    if did_something(job) and job.process_label == 'LabelCalculation' and 'clusters' in job.inputs:
        labelled += [cluster.uuid for cluster in job.inputs.clusters.values()]
left = orm.QueryBuilder().append(orm.ProcessNode, project='id').all(flat=True)
left = [pk for pk in left if not orm.load_node(pk).is_terminated]
print(json.dumps({'pk': campaign.pk, 'ok': campaign.is_finished_ok, 'message': campaign.exit_message,
                  'calls': sorted(walk(campaign, '')), 'labelled': labelled, 'left': left}))
"""


class Home:
    """A folder with an AiiDA profile, and the commands of its user."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith('AIIDA')}
        # Login shells of jobs find no profile of the user: killed in the middle of that, they leave locks behind.
        self.environment |= {'AIIDA_PATH': str(folder), 'HOME': str(folder), 'PATH': f'{BIN}:{os.environ["PATH"]}'}

    def run(self, *command, expect=0, timeout=240):
        """Return what a command printed; it must end in time, with the status that is expected."""
        try:
            done = subprocess.run(
                [str(BIN / command[0]), *command[1:]],
                env=self.environment,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            pytest.fail(f'{command} did not end in {timeout} s: {error.stdout}\n{error.stderr}\n{self.logs()}')
        said = done.stdout + done.stderr
        if expect is not None and done.returncode != expect:
            pytest.fail(f'{command} ended with {done.returncode}: {said}\n{self.logs()}')
        return said

    def ask_campaign(self):
        return json.loads(self.run('python', '-c', ASK).splitlines()[-1])

    def wait_until(self, condition, what, seconds=300):
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                pytest.fail(f'{what}: not in {seconds} s\n{self.run("verdi", "process", "list", "-a")}\n{self.logs()}')
            time.sleep(0.1)
        return value

    def wait_under_cron(self, condition, what, seconds=600):
        """Wait as one whose cron runs the doctor: AiiDA's broker may miss that a worker died, and nothing goes on."""
        seen = [None, time.monotonic()]

        def look():
            if value := condition():
                return value
            changed = self.count('select max(mtime) from db_dbnode')
            if changed != seen[0]:
                seen[:] = changed, time.monotonic()
            elif time.monotonic() - seen[1] > 90:
                self.run('aiida-oodal', 'doctor', '--fix', expect=None)
                seen[1] = time.monotonic()
            return False

        return self.wait_until(look, what, seconds)

    def wait_for_end(self, what, ended, *values):
        """Wait under cron until something has ended.

        :param ended: SQL that counts it, with its values.
        """
        self.wait_under_cron(lambda: self.count(ended, *values), what)

    def logs(self, size=4000):
        files = (self.folder / '.aiida' / 'daemon' / 'log').glob('*.log')
        return '\n'.join(f'===== {path.name}\n{path.read_text(errors="replace")[-size:]}' for path in files)

    def processes(self, *words):
        """Return the processes of this home; with words those that have them all in their command line."""
        found = []
        for process in psutil.process_iter(['environ', 'cmdline']):
            environ, command = process.info['environ'] or {}, process.info['cmdline'] or []
            if environ.get('AIIDA_PATH', '').startswith(str(self.folder)) and set(words) <= set(command):
                found.append(process)
        return found

    def count(self, sql, *values):
        """Ask the SQLite database itself: loading a profile takes seconds, and a campaign does not wait."""
        (database,) = self.folder.glob('.aiida/repository/*/database.sqlite')
        with sqlite3.connect(f'file:{database}?mode=ro', uri=True, timeout=30) as connection:
            (count,) = connection.execute(sql, values).fetchone()
        connection.close()
        return count

    def is_underway(self, label):
        """Tell whether a call of this name has been made and taken up by a worker."""
        return self.count(
            'select count(*) from db_dblink join db_dbnode on db_dbnode.id = output_id where db_dblink.label = ? '
            "and json_extract(attributes, '$.process_state') in ('running', 'waiting', 'finished')",
            label,
        )


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / 'home'
    (folder / '.aiida').mkdir(parents=True)
    home = Home(folder)
    yield home
    for process in home.processes():
        process.kill()


def walk(node, path=''):
    """Yield the path of every call below a node, by the names of the links, as ``ASK`` does in another profile.

    There, a call that did nothing does not count: whoever made it was killed before anybody began it, and made another.
    """
    from aiida.common.links import LinkType

    for link in node.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all():
        yield f'{path}/{link.link_label}'
        yield from walk(link.node, f'{path}/{link.link_label}')


@pytest.fixture
def undisturbed(request):
    """Return a function that gives the calls of the same campaign where nobody killed anything."""
    return lambda: sorted(walk(request.getfixturevalue('campaign')))
