"""A campaign that is exported and imported elsewhere: everything that is said of it is said there, too."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiida import orm
from aiida.engine import ProcessState
from ase.build import bulk
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.operations.campaign.archive import export_campaign
from aiida_oodal.queue import LevelOfTheory, enqueue
from aiida_oodal.workchains.calls import CAMPAIGN, CAMPAIGN_NAME

BIN = Path(sys.executable).parent
#: How long ago something was: it grows while the test runs.
AGE = r'\d+ (min|h|d)\b'


def export(*words, code=0):
    done = CliRunner().invoke(main, ['campaign', 'export', *map(str, words)])
    assert done.exit_code == code, done.output
    return ' '.join(done.output.split())


def look(profile, campaign, folder, home):
    """Return what the commands say in a profile, and the PKs of its nodes by UUID."""
    folder.mkdir()
    words = [sys.executable, str(Path(__file__).with_name('look.py')), profile, campaign, str(folder)]
    environment = os.environ | {'AIIDA_PATH': str(home)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / 'said.json').read_text())
    return found['said'], found['pks']


def import_archive(path, home):
    """Import an archive into an empty profile of its own, as the message of the export says, and return the profile."""
    (home / '.aiida').mkdir(parents=True)
    for words in (['aiida-oodal', 'setup', 'profile'], ['verdi', 'archive', 'import', str(path)]):
        command = [str(BIN / words[0]), *words[1:]]
        environment = os.environ | {'AIIDA_PATH': str(home)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return 'oodal'


def make_ended():
    node = orm.WorkChainNode(process_type=CAMPAIGN)
    node.set_process_label(CAMPAIGN_NAME)
    node.store()
    node.set_process_state(ProcessState.KILLED)
    node.seal()
    return node


@pytest.mark.slow
@pytest.mark.daemon
def test_an_imported_campaign_is_told_of_in_the_same_words(campaign, aiida_profile, tmp_path):
    path = tmp_path / 'small.aiida'
    says = export(campaign.pk, '-o', path)
    assert says.endswith(f'verdi archive import small.aiida aiida-oodal campaign status {campaign.uuid}')
    here, mine = look(aiida_profile.name, campaign.uuid, tmp_path / 'here', os.environ['AIIDA_PATH'])
    home = tmp_path / 'home'
    there, theirs = look(import_archive(path, home), campaign.uuid, tmp_path / 'there', home)
    assert set(here) == set(there)
    assert len(here) > 10
    pks = {str(pk): str(theirs[uuid]) for uuid, pk in mine.items() if uuid in theirs}
    for asked in here:
        text, text_there = (re.sub(AGE, 'AGE', said[asked]) for said in (here, there))
        # numbers stand at odd places; where they differ, one is the PK of a node here and the other the one there
        ours, others = re.split(r'(\d+)', text), re.split(r'(\d+)', text_there)
        assert ours[::2] == others[::2], asked
        pairs = {(a, b) for a, b in zip(ours[1::2], others[1::2], strict=True) if a != b}
        assert pairs <= set(pks.items()), asked
    assert 'LABELLED' in here['status']

    # a dry run finds what the real one would
    words = [str(BIN / 'aiida-oodal'), 'campaign', 'extend', campaign.uuid, '--set', 'md.steps=100', '--dry-run']
    environment = os.environ | {'AIIDA_PATH': str(home)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert 'is not configured, as after the import of an archive' in ' '.join(done.stderr.split())


def test_an_entry_that_another_campaign_asked_for_first_is_counted_after_import(tmp_path):
    level = LevelOfTheory('oodal.label.toy', {'of': str(tmp_path)})
    first, second = (orm.StructureData(ase=bulk('Al', a=4.71, cubic=True)).store() for _ in range(2))
    one, other = make_ended(), make_ended()
    enqueue([first], level, campaign=one.uuid)
    assert not enqueue([second], level, campaign=other.uuid)[second.uuid].first
    done = export_campaign(other, tmp_path / 'other')
    home = tmp_path / 'home'
    import_archive(done.path, home)
    words = [str(BIN / 'aiida-oodal'), 'queue', 'list', '--campaign', other.uuid]
    environment = os.environ | {'AIIDA_PATH': str(home)}
    listed = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert listed.stdout.startswith('1 PENDING_DFT, 0 SUBMITTED'), listed.stderr


def test_what_cannot_be_exported_is_refused_with_a_way_out(tmp_path):
    running = orm.WorkChainNode(process_type=CAMPAIGN)
    running.set_process_label(CAMPAIGN_NAME)
    running.store()
    running.set_process_state(ProcessState.RUNNING)
    assert f'has not ended, and AiiDA exports no process that runs: `aiida-oodal campaign stop {running.pk}`' in export(
        running.pk, code=1
    )
    running.set_process_state(ProcessState.KILLED)
    assert '`aiida-oodal doctor --fix` closes processes that were killed' in export(
        running.pk, '-o', tmp_path / 'a.aiida', code=1
    )
    running.seal()
    assert 'there is no folder' in export(running.pk, '-o', tmp_path / 'missing' / 'a.aiida', code=1)
    export(running.pk, '-o', tmp_path / 'a.aiida')
    assert 'is there already: give another name, or --overwrite' in export(
        running.pk, '-o', tmp_path / 'a.aiida', code=1
    )
    export(running.pk, '-o', tmp_path / 'a.aiida', '--overwrite')
