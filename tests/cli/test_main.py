"""Commands on a campaign in a profile that is loaded, and the snippets of README and docs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.cli.main import COMMANDS
from aiida_oodal.report import trace_potential

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


def test_help_answers_without_aiida():
    result = CliRunner().invoke(main, ['--help'])
    assert result.exit_code == 0
    for command, (_, sentence) in COMMANDS.items():
        assert command in result.output
        assert sentence.split()[0] in result.output


def test_help_imports_no_aiida_and_touches_no_home(tmp_path):
    environment = os.environ | {'HOME': str(tmp_path)}
    del environment['AIIDA_PATH']
    code = (
        'import sys\nfrom aiida_oodal.cli import main\n'
        "main(['--help'], standalone_mode=False)\nprint('aiida' in sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == 'False', done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_is_where_the_group_says(name):
    command = main.get_command(click.Context(main), name)
    assert command.name == name
    assert command.help


@pytest.mark.parametrize(
    'words', [['doctor'], ['watch', '1'], ['report', '1'], ['scores', 'stats', '1'], ['setup', 'codes']]
)
def test_an_unknown_profile_is_told_with_the_way_out(words, aiida_profile):
    result = CliRunner().invoke(main, [*words, '-p', 'no-such-profile'])
    assert result.exit_code == 2
    assert '`verdi profile list` lists what there is' in result.output
    assert '`aiida-oodal setup profile` makes one' in result.output


def test_without_any_profile_the_way_out_is_told_and_a_dry_run_runs(tmp_path):
    environment = os.environ | {'AIIDA_PATH': str(tmp_path), 'COLUMNS': '500'}
    (tmp_path / '.aiida').mkdir()

    def run(*words):
        command = [str(Path(sys.executable).parent / 'aiida-oodal'), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run('doctor')
    assert done.returncode == 2
    assert 'there is no default profile; ' in done.stderr
    assert '`aiida-oodal setup profile` makes one' in done.stderr
    done = run('setup', 'computer', '--preset', 'a100-slurm', '--dry-run')
    assert done.returncode == 0, done.stderr
    assert '#SBATCH --partition=a100' in done.stdout


def test_an_unknown_campaign_names_the_way_out():
    result = CliRunner().invoke(main, ['report', '987654'])
    assert result.exit_code == 1
    assert '`verdi process list -a -L CampaignWorkChain` lists those there are' in result.output


def test_another_node_is_not_taken_for_a_campaign(aiida_profile):
    from aiida.orm import Int

    result = CliRunner().invoke(main, ['watch', str(Int(1).store().pk)])
    assert result.exit_code == 1
    assert 'is no CampaignWorkChain' in result.output


@pytest.mark.slow
@pytest.mark.daemon
def test_watch_shows_the_table(campaign):
    result = CliRunner().invoke(main, ['watch', str(campaign.pk)])
    assert result.exit_code == 0, result.output
    assert 'every walker ran to its end' in result.output
    assert result.output.count('COMPLETED') >= 2


@pytest.mark.slow
@pytest.mark.daemon
def test_report_prints_its_path(campaign, tmp_path):
    result = CliRunner().invoke(main, ['report', campaign.uuid, '-o', str(tmp_path / 'page.html')])
    assert result.exit_code == 0, result.output
    assert Path(result.output.strip()) == tmp_path / 'page.html'
    assert (tmp_path / 'page.html').read_text().startswith('<!doctype html>')


def run_snippet(page, profile, folder):
    """Return what the Python of a page prints."""
    (snippet,) = re.findall(r'```python\n(.*?)```', page, flags=re.DOTALL)
    (folder / 'snippet.py').write_text(snippet)
    command = ['verdi', '-p', profile.name, 'run', str(folder / 'snippet.py')]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.daemon
def test_the_snippet_of_the_readme_runs(campaign, aiida_profile, tmp_path):
    printed = run_snippet(README.replace('aluminium: campaign', campaign.label), aiida_profile, tmp_path)
    chain = trace_potential(campaign.outputs.potential)
    assert len(printed.strip().splitlines()) == len(chain)
    assert f'under potential {chain[0].ignorant}' in printed


def test_the_readme_names_what_there_is():
    for target in re.findall(r'make ([a-z-]+)', README):
        assert re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), flags=re.MULTILINE), target
    for path in re.findall(r'`((?:aiida_oodal|examples|tests|benchmarks)/[a-z_/.]*)`', README):
        assert (ROOT / path).exists(), path
    for command in re.findall(r'aiida-oodal (watch|report|quickstart)', README):
        assert command in COMMANDS
