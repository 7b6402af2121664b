"""The site builds without a warning, no page is forgotten, and what is made of the code is complete."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from machine import require

require('sphinx', 'myst_parser', 'furo', 'aiida_shell', 'aiida_quantumespresso')

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
POINTS = [
    point
    for group in ('aiida.data', 'aiida.workflows', 'aiida.calculations', 'aiida.parsers')
    for point in entry_points(group=group)
    if point.value.startswith('aiida_oodal.')
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    options = [
        '--builder',
        'html',
        '--fail-on-warning',
        '--keep-going',
        '--quiet',
        '--doctree-dir',
        folder / 'doctrees',
    ]
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', *options, DOCS, folder / 'html'],
        capture_output=True,
        text=True,
        check=False,
        # No network: whoever asks it for something fails at once.
        env={**os.environ, 'https_proxy': 'http://127.0.0.1:9', 'http_proxy': 'http://127.0.0.1:9'},
    )
    assert done.returncode == 0, done.stderr
    return folder / 'html'


def read_text(path):
    return re.sub(r'<[^>]+>', '', path.read_text(encoding='utf-8'))


def test_every_page_is_in_a_toctree(site):
    blocks = re.findall(r'```\{toctree\}\n(.*?)```', (DOCS / 'index.md').read_text(encoding='utf-8'), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(':')]
    pages = {
        path.relative_to(DOCS).with_suffix('').as_posix() for path in DOCS.rglob('*.md') if '_build' not in path.parts
    }
    assert sorted(lines) == sorted(pages - {'index'})
    assert [page for page in pages if not (site / f'{page}.html').is_file()] == []


def test_every_entry_point_is_described(site):
    page = read_text(site / 'reference' / 'entry_points.html')
    assert len(POINTS) > 50
    missing = [
        point.name for point in POINTS if not re.search(rf'^{re.escape(point.name)}\n', page, flags=re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize('group', ['aiida.workflows', 'aiida.calculations'])
def test_every_process_has_its_ports(site, group):
    page = {'aiida.workflows': 'workchains', 'aiida.calculations': 'calculations'}[group]
    text = (site / 'reference' / f'{page}.html').read_text(encoding='utf-8')
    sections = [part for part in re.split('<h[23]>', text) if '<strong>Inputs</strong>' in part]
    points = [point for point in POINTS if point.group == group]
    assert len(sections) == len(points)
    for point in points:
        section = next(part for part in sections if re.match(rf'<code[^>]*><span[^>]*>{re.escape(point.name)}<', part))
        found = point.load()
        spec = (found if isinstance(found, type) else found.process_class).spec()
        shown = set(spec.inputs) - {'metadata', 'monitors', 'remote_folder'}
        assert [name for name in shown if f'<strong>{name}</strong>' not in section] == [], point.name


def test_exit_codes_and_settings_are_those_of_the_code(site):
    from aiida_oodal.engine.md.settings import MdSettings
    from aiida_oodal.workchains.campaign import CampaignWorkChain

    codes = read_text(site / 'reference' / 'exit_codes.html')
    assert [label for label in CampaignWorkChain.spec().exit_codes if label not in codes] == []
    settings = read_text(site / 'reference' / 'settings.html')
    assert [name for name in MdSettings.model_fields if name not in settings] == []


def test_formulas_need_no_script_from_elsewhere(site):
    page = (site / 'mathematics.html').read_text(encoding='utf-8')
    assert page.count('<math ') > 50
    assert re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css)', page) == []


def test_no_generated_part_is_left_out(site):
    stubs = [
        path for path in (DOCS / 'reference').glob('*.md') if '<!-- generated: ' in path.read_text(encoding='utf-8')
    ]
    assert len(stubs) == 7
    assert [
        path.name for path in stubs if 'generated: ' in (site / 'reference' / f'{path.stem}.html').read_text()
    ] == []
