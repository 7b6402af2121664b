"""Commands on a campaign in a profile that is loaded, and the snippets of README and docs."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from aiida.orm import load_node
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.report import trace_potential

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


def test_help_answers_without_aiida():
    result = CliRunner().invoke(main, ['--help'])
    assert result.exit_code == 0
    for command in ('quickstart', 'watch', 'report'):
        assert command in result.output


def test_an_unknown_campaign_names_the_way_out():
    result = CliRunner().invoke(main, ['report', '987654'])
    assert result.exit_code == 1
    assert '`verdi process list -a -L CampaignWorkChain` lists campaigns' in result.output


def test_another_node_is_not_taken_for_a_campaign(aiida_profile):
    from aiida.orm import Int

    result = CliRunner().invoke(main, ['watch', str(Int(1).store().pk)])
    assert result.exit_code == 1
    assert 'is not a campaign' in result.output


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


@pytest.mark.slow
@pytest.mark.daemon
def test_the_snippet_of_the_page_on_md_runs(campaign, aiida_profile, tmp_path):
    printed = run_snippet((ROOT / 'docs' / 'md.md').read_text(), aiida_profile, tmp_path)
    run = load_node(int(printed.split()[-1]))
    end = time.monotonic() + 300
    while not run.is_terminated:
        assert time.monotonic() < end, run.process_state
        time.sleep(0.5)
    assert run.is_finished_ok, run.exit_message
    assert run.inputs.md.potential == campaign.outputs.potential
    assert run.outputs.results['outcome'] in ('COMPLETED', 'UNCERTAIN')


def test_the_readme_names_what_there_is():
    for target in re.findall(r'make ([a-z-]+)', README):
        assert re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), flags=re.MULTILINE), target
    for path in re.findall(r'`((?:aiida_oodal|examples|tests|benchmarks)/[a-z_/.]*)`', README):
        assert (ROOT / path).exists(), path
    for command in re.findall(r'aiida-oodal (watch|report|quickstart)', README):
        assert command in main.commands
