"""The pages are followed as they stand."""

import re
import shlex
import sys
from pathlib import Path

import click
import pytest

from aiida_oodal.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / 'docs').glob('*.md'))


def commands(text):
    """Return the shell commands of a page, fenced or indented, with continued lines joined."""
    fenced = re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)
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
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
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
def test_from_nothing_to_a_tested_installation(home):
    home.environment['HOME'] = str(home.folder)
    page = (ROOT / 'docs' / 'installation.md').read_text()
    done = []
    for line in commands(page):
        words = shlex.split(line.replace('$PWD/.venv', sys.prefix))
        # What comes before was done by whoever runs this test; what comes after is what `make quickstart` runs.
        if words[0] == 'aiida-oodal':
            home.run(*words)
            done.append(words[1:3])
    assert done == [
        ['setup', 'profile'],
        ['setup', 'computer'],
        ['setup', 'codes'],
        ['doctor', '--fix'],
        ['setup', 'test'],
    ]
