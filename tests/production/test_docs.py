"""The pages are followed as they stand."""

import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from machine import has

from aiida_oodal.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / 'docs').glob('*.md'))


def fenced_commands(text):
    """Return the shell commands of a page that run as they stand."""
    blocks = re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def commands(text):
    """Return all shell commands of a page, also indented ones that name a machine of their own."""
    fenced = fenced_commands(text)
    indented = re.findall(r'^ {4}(?=[a-z])((?:.*\\\n)*.*)$', text, flags=re.MULTILINE)
    lines = '\n'.join([*fenced, *indented]).replace('\\\n', ' ').splitlines()
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_that_it_is_given(page):
    inline = re.findall(r'`(aiida-oodal [^`]*)`', page.read_text())
    lines = [line for line in [*commands(page.read_text()), *inline] if line.startswith('aiida-oodal ')]
    for line in lines:
        command, words = main, shlex.split(line)[1:]
        while isinstance(command, click.Group) and words:
            name = words.pop(0)
            command = command.get_command(click.Context(command), name)
            assert command is not None, line
        known = {option for parameter in command.params for option in parameter.opts}
        given = {word.split('=')[0] for word in words if word.startswith('-')}
        assert given <= known, line


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_file_and_page_that_is_named_is_there(page):
    text = page.read_text()
    for path in re.findall(r'\b(?:tests|benchmarks|examples|aiida_oodal)/[\w/.]*\w', text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r'\]\(([\w.]+\.md)(?:#[\w-]+)?\)', text):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.daemon
def test_from_nothing_to_a_tested_installation_on_slurm(home):
    home.environment['HOME'] = str(home.folder)
    pages = ['installation', *(['slurm'] if has('slurm') else []), 'operations']
    done = []
    for page in pages:
        text = (ROOT / 'docs' / f'{page}.md').read_text()
        for line in fenced_commands(text):
            words = shlex.split(line.replace('$PWD/.venv', sys.prefix))
            # The environment was made and Slurm started by whoever runs this test; campaigns have tests of their own.
            if words[0] == 'aiida-oodal':
                home.run(*words)
                done.append(words[1:3])
    installed = [
        ['setup', 'profile'],
        ['setup', 'computer'],
        ['setup', 'codes'],
        ['doctor', '--fix'],
        ['setup', 'test'],
    ]
    on_slurm = [['setup', 'computer'], ['setup', 'codes'], ['setup', 'test']]
    assert done == [*installed, *(on_slurm if 'slurm' in pages else []), ['doctor'], ['doctor', '--fix']]
