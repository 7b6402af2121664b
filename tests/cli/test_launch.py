"""``aiida-oodal campaign launch``: what is checked before a script submits anything."""

import ase.io
import pytest
from aiida import orm
from ase.build import bulk
from ase.calculators.emt import EMT
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.workchains.calls import CAMPAIGN


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return ' '.join(result.output.split())


def count():
    return orm.QueryBuilder().append(orm.ProcessNode).count()


@pytest.fixture
def script(tmp_path, localhost):
    """Return a script that `init` wrote."""
    given = ('--element', 'Cu', '--labeller', 'emt', '--computer', localhost.label, '--protocol', 'quick')
    invoke('init', tmp_path / 'cu', *given)
    return tmp_path / 'cu' / 'launch.py'


def test_a_dry_run_checks_and_submits_nothing(script, stopped_daemon_client):
    before = count()
    said = invoke('campaign', 'launch', script, '--dry-run', code=1)
    assert 'BAD daemon is not running mend it: aiida-oodal doctor --fix' in said
    assert 'CampaignWorkChain cu was not submitted: mend the above, or give --force' in said
    said = invoke('campaign', 'launch', script, '--dry-run', '--force')
    assert 'CampaignWorkChain cu: its inputs are accepted. Nothing was submitted; what the script does after it' in said
    assert count() == before


def test_what_is_not_advised_is_said_before_the_submission(tmp_path, localhost, stopped_daemon_client):
    """Labels without a stress, where the default is to run at constant pressure."""
    cells = [bulk('Cu', cubic=True, a=a) for a in (3.55, 3.6, 3.65, 3.7)]
    for cell in cells:
        cell.rattle(0.02)
        cell.calc = EMT()
        cell.info['REF_energy'], cell.arrays['REF_forces'] = cell.get_potential_energy(), cell.get_forces()
        cell.calc = None
    ase.io.write(tmp_path / 'mine.xyz', cells, format='extxyz')
    given = ('--element', 'Cu', '--labeller', 'emt', '--computer', localhost.label, '--protocol', 'quick')
    invoke('init', tmp_path / 'cu', *given, '--labelled', tmp_path / 'mine.xyz')
    said = invoke('campaign', 'launch', tmp_path / 'cu' / 'launch.py', '--dry-run', '--force')
    warned = 'cu: warning, nothing that stops it: walkers at constant pressure (to_1200K, to_600K), but no label has'
    assert warned in said
    assert 'Nothing was submitted' in said


def test_a_calculator_that_jobs_do_not_find_is_told_before_anything_is_submitted(tmp_path, localhost):
    given = ('--element', 'Cu', '--computer', localhost.label, '--protocol', 'quick')
    for name, reason in (('no_such_package.ase:Code', 'No module named'), ('ase.calculators.emt:EMTT', 'no attribute')):
        invoke('init', tmp_path / name, *given, '--labeller', name)
        said = invoke('campaign', 'launch', tmp_path / name / 'launch.py', '--dry-run', code=1)
        assert f"Error: python3 of jobs on {localhost.label} does not find '{name}': " in said
        assert reason in said


def test_an_error_without_words_is_told_with_its_place(script, stopped_daemon_client):
    script.write_text("from ase import Atoms\n\nAtoms('Agg')\n")
    assert f'Error: {script}, line 3: ' in invoke('campaign', 'launch', script, code=1)


def test_without_a_daemon_nothing_is_submitted(script, stopped_daemon_client):
    before = count()
    assert 'CampaignWorkChain cu was not submitted' in invoke('campaign', 'launch', script, code=1)
    assert 'no daemon is running' in invoke('campaign', 'launch', script, '--force', code=1)
    assert count() == before


def test_inputs_are_refused_before_anything_else(script, stopped_daemon_client):
    script.write_text(script.read_text().replace("'steps': 20000", "'step': 20000"))
    said = invoke('campaign', 'launch', script, code=1)
    assert "Error: walker 'to_600K': MD settings: 'step' is not a setting; did you mean 'steps'?" in said
    assert 'daemon' not in said


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('from aiida.engine import run_get_node, submit\n', 'line 1: --dry-run cannot hold back what `run_get_node`'),
        (
            'from aiida import engine\nengine.submit(None)\n',
            'line 2: --dry-run cannot hold back what `submit` of AiiDA',
        ),
        ('x = (\n', 'line 1: '),
    ],
)
def test_what_a_dry_run_could_not_hold_back_is_refused(tmp_path, text, message):
    (tmp_path / 'script.py').write_text(text)
    assert message in invoke('campaign', 'launch', tmp_path / 'script.py', '--dry-run', code=1)


def test_a_file_that_a_script_lacks_is_told_in_one_line(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text("import ase.io\nase.io.read('randum.cif')\n")
    said = invoke('campaign', 'launch', script, code=1)
    assert f"{script}, line 2: FileNotFoundError: [Errno 2] No such file or directory: 'randum.cif'" in said
    assert 'Traceback' not in said


def test_a_script_has_to_leave_its_campaign(tmp_path):
    node = orm.WorkChainNode(process_type=CAMPAIGN, label='cu')
    node.store()
    (tmp_path / 'script.py').write_text(f'from aiida.orm import load_node\nleft = load_node({node.pk})\n')
    said = invoke('campaign', 'launch', tmp_path / 'script.py')
    assert f'Campaign {node.pk} cu runs. Then: aiida-oodal campaign status {node.pk}' in said
    (tmp_path / 'script.py').write_text('campaign = 5\n')
    assert 'left no campaign in a variable' in invoke('campaign', 'launch', tmp_path / 'script.py', code=1)
