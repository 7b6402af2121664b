import base64
import json
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from machine import find_browser, needs

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.report.screening.content import ScreenView
from aiida_oodal.report.screening.drawing import QUADRANT_NAMES, distribution, draw_screen, rank_correlation
from aiida_oodal.report.screening.page import (
    define_out,
    explain_blind,
    headline,
    list_candidates,
    list_contradictions,
    list_shares,
    write_screen_page,
)

CHROMIUM = find_browser()

OPTIONS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-sync',
    '--disable-background-networking',
    '--disable-component-update',
    '--enable-unsafe-swiftshader',
    '--enable-logging=stderr',
    '--virtual-time-budget=20000',
]


def read_data(page):
    """Return what the script of a page reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def unpack(entry):
    kinds = {'f4': '<f4', 'i4': '<i4', 'u1': '|u1'}
    return np.frombuffer(base64.b64decode(entry['b']), dtype=kinds[entry['t']])


def write(view, folder, **options):
    path = write_screen_page(view, folder / 'small.html', kinds=['pca'], max_points=20, **options)
    return path.read_text(encoding='utf-8')


@pytest.fixture(scope='session')
def page(view, tmp_path_factory):
    return write_screen_page(view, tmp_path_factory.mktemp('page') / 'new' / 'screen.html')


def test_headline_says_what_is_out_how_much_and_against_what(view):
    worst, best = headline(view)
    assert worst == (
        'hot: 30 of 30 structures are out (100%, 95 % interval 89% to 100%), far more than by chance (the models '
        'disagree about 30; far from the reference set: 30).'
    )
    assert best.startswith('cold: ')
    assert 'no more than by chance' in best
    definition = define_out(view)
    assert definition.endswith('of a set like the reference 5% would be by chance.')
    assert 'aligned_variance or mahalanobis, by the mean over its atoms or by its worst atom, is above' in definition
    assert list_contradictions(view) == []
    mean = replace(view, aggregate='mean')
    assert headline(mean)[0].startswith('hot: 30 of 30 structures are out')


def test_shares_are_counted_and_blind_scores_named(view):
    rows = {(row['metric'], row['set'].name): row for row in list_shares(view)}
    hot, cold = rows['aligned_variance', 'hot'], rows['aligned_variance', 'cold']
    assert hot['main']
    assert not hot['blind']
    assert hot['separation'].auroc == 1.0
    assert [share['count'] for share in hot['shares']] == ['30 of 30'] * 3
    assert cold['blind']
    assert list(explain_blind(list_shares(view))) == ['cold']
    assert rows['aligned_variance', 'heldout']['separation'] is None
    assert not rows['variance', 'hot']['main']


def test_the_page_stands_alone(page):
    text = page.read_text(encoding='utf-8')
    without_plotly = text[text.index('</script>') :]
    assert not re.search(r'(src|href)\s*=', without_plotly)
    assert 'http' not in without_plotly
    for words in ('hidden danger', 'Known flaw', 'uuid-of-hot', 'separates nothing', 'number 1 by score', 'eV/Å'):
        assert words in text


def test_what_the_page_draws_is_what_was_scored(page, view, screened_sets):
    data = read_data(page.read_text(encoding='utf-8'))
    sets, structure = unpack(data['points']['set']), unpack(data['points']['structure'])
    assert [entry['name'] for entry in data['sets']] == ['reference', 'heldout', 'cold', 'hot']
    assert len(sets) == 160
    packed = data['references']['A']['metrics']['aligned_variance']['aggregates']['max']
    expected = np.concatenate([entry.scores['A'].of('aligned_variance', 'max') for entry in view.sets])
    np.testing.assert_allclose(unpack(packed['values']), expected, rtol=1e-6)
    start, size = unpack(data['atoms']['start']), unpack(data['atoms']['size'])
    positions = unpack(data['atoms']['positions']).reshape(-1, 3)
    scores = unpack(data['atoms']['scores']['A']['mahalanobis'])
    for point in (0, 70, 159):
        name = data['sets'][sets[point]]['name']
        structures, _ = screened_sets[name]
        part = slice(start[point], start[point] + size[point])
        np.testing.assert_allclose(positions[part], structures[structure[point]].positions, atol=1e-6)
        own = next(entry for entry in view.sets if entry.name == name).scores['A']
        atoms = slice(own.offsets[structure[point]], own.offsets[structure[point] + 1])
        np.testing.assert_allclose(scores[part], own.per_atom['mahalanobis'][atoms], rtol=1e-6)
    counts = np.array(data['references']['A']['maps']['pca']['counts'])
    np.testing.assert_array_equal(counts.sum(axis=0), [60, 40, 30, 30])


def test_the_page_is_bounded_and_candidates_are_always_on_it(view, tmp_path):
    page = write(view, tmp_path, max_atoms=50)
    data = read_data(page)
    sets = unpack(data['points']['set'])
    assert np.bincount(sets).tolist() == [5, 5, 5, 5]
    assert '20 of 160 structures shown, 5 with their atoms' in page
    candidates = {int(position) for position in data['sets'][3]['candidates']}
    assert candidates <= set(unpack(data['points']['position'])[sets == 3])
    with_atoms = unpack(data['atoms']['start']) >= 0
    shown = np.isin(unpack(data['points']['position']), list(candidates)) & (sets == 3)
    assert with_atoms[shown].all()


def test_names_cannot_break_out_of_the_page(view, tmp_path):
    evil = '</script><script>alert(1)</script>'
    sets = [replace(entry, name=evil) if entry.name == 'hot' else entry for entry in view.sets]
    page = write(ScreenView(sets), tmp_path)
    assert evil not in page
    assert read_data(page)['sets'][3]['name'] == evil


def test_infinite_scores_are_counted_apart(view):
    *others, hot = view.sets
    scores = hot.scores['A']
    values = scores.of('mahalanobis').copy()
    values[:4] = np.inf
    per_structure = {**scores.per_structure, 'mahalanobis': {**scores.per_structure['mahalanobis'], 'mean': values}}
    far = ScreenView([*others, replace(hot, scores={'A': replace(scores, per_structure=per_structure)})])
    found = distribution(far, 'A', 'mahalanobis', 'mean')
    assert found.infinite == {'reference': 0, 'heldout': 0, 'cold': 0, 'hot': 4}
    assert found.shares['hot'].sum() == pytest.approx(26 / 30)
    for name in ('reference', 'heldout', 'cold'):
        assert found.shares[name].sum() == pytest.approx(1.0)


def test_candidates_are_listed_in_the_order_of_preference(view):
    rows = list_candidates(draw_screen(view, kinds=['pca']))
    hot = view.sets[3].scores['A'].of('aligned_variance')
    assert [row['structure'] for row in rows] == np.argsort(-hot)[:3].tolist()
    assert {row['quadrant'] for row in rows} <= set(QUADRANT_NAMES)
    assert [row['order'] for row in rows] == [1, 2, 3]


def test_scores_are_compared_with_the_true_error(view):
    rho = rank_correlation(view, 'force error [eV/Å]', 'A', 'aligned_variance', 'mean')
    assert set(rho) == {'reference', 'heldout', 'cold', 'hot', 'all targets'}
    assert rho['all targets'] > 0.8


def test_two_references_stand_side_by_side(view, tmp_path):
    targets = [replace(entry, scores={'A': entry.scores['A'], 'B': entry.scores['A']}) for entry in view.targets]
    both = ScreenView(targets)
    assert both.references == ('A', 'B')
    assert headline(both)[-1].startswith('30 of the 30 structures of hot are out for every reference (A, B)')
    page = write(both, tmp_path)
    data = read_data(page)
    assert list(data['references']) == ['A', 'B']
    assert data['references']['B']['maps'] == {}  # no consensus under B was given
    assert 'nothing held out to compare' in page


def test_views_that_contradict_themselves_are_refused(view):
    target = view.targets[0]
    with pytest.raises(OodalError, match='one target or more'):
        ScreenView([view.sets[0]])
    with pytest.raises(OodalError, match='different names'):
        ScreenView([target, target])
    with pytest.raises(OodalError, match='force_errors has 3 entries where 270 are needed'):
        replace(target, force_errors=np.zeros(3))
    with pytest.raises(OodalError, match='of other structures'):
        replace(target, scores={'A': target.scores['A'], 'B': view.sets[0].scores['A']})


@pytest.mark.slow
@needs('browser')
def test_a_click_in_a_real_browser_shows_the_structure(page, tmp_path):
    click = """<script>addEventListener('load', () => {
      const points = [...document.getElementById('map').data].find((trace) => trace.name === 'cold');
      document.getElementById('map').emit('plotly_click', { points: [{ customdata: points.customdata[7] }] });
      document.querySelector('#colorButtons button[data-value=score]').click();
      document.getElementById('regions').click();
    });</script></body>"""
    copy = tmp_path / 'clicked.html'
    copy.write_text(page.read_text(encoding='utf-8').replace('</body>', click), encoding='utf-8')
    done = subprocess.run(
        [CHROMIUM, *OPTIONS, f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', copy.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert 'Uncaught' not in done.stderr
    dom = done.stdout
    assert '<h3 id="structureTitle">cold, structure 7</h3>' in dom
    assert 'uuid-of-cold' in dom[dom.index('id="structureNodes"') : dom.index('Distribution of the score')]
    assert '9 atoms; coloured by aligned_variance' in dom
    assert 'region 8' in dom
    assert '<canvas' in dom[dom.index('id="structure"') :]
