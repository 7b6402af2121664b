from pathlib import Path

import ase.io
import numpy as np
import pandas
import pytest
from aiida.engine import run_get_node
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.cli.run_screen import submit_screen
from aiida_oodal.cli.targets import ScreenInputs
from aiida_oodal.data import LatentsData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.screen import ScreenWorkChain

DATA = Path(__file__).parents[1] / 'data' / 'mace_alcu'


def invoke(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write(folder, text):
    path = folder / 'targets.yaml'
    path.write_text(text)
    return path


def test_a_file_of_targets_becomes_inputs_and_each_node_is_stored_once(tmp_path):
    ase.io.write(tmp_path / 'hot.extxyz', ase.io.read(DATA / 'heldout.extxyz', ':2'))
    path = write(
        tmp_path,
        f"""
ensembles:
  T1: {{models: {DATA}/w*.model, reference: {DATA}/train.extxyz, heldout: {DATA}/heldout.extxyz}}
targets:
  T1_OOD: {{structures: hot.extxyz}}
candidates: {{n: 5}}
""",
    )
    first, second = ScreenInputs(path, say=lambda _: None).build(), ScreenInputs(path, say=lambda _: None).build()
    assert list(first['ensembles']['T1']['models']) == ['w1', 'w2', 'w3', 'w4']
    assert first['targets']['T1_OOD']['structures'].n_structures == 2
    for left, right in zip(
        [*first['ensembles']['T1']['models'].values(), first['ensembles']['T1']['reference']],
        [*second['ensembles']['T1']['models'].values(), second['ensembles']['T1']['reference']],
        strict=True,
    ):
        assert left.pk == right.pk
    again = path.read_text().replace('hot.extxyz', first['targets']['T1_OOD']['structures'].uuid)
    assert ScreenInputs(write(tmp_path, again)).build()['targets']['T1_OOD']['structures'].pk is not None


def test_frames_that_cannot_be_read_are_named_and_left_out(tmp_path):
    lines = (DATA / 'heldout.extxyz').read_text().splitlines()
    lines[2 + 34] = 'Al 0.0 zero 0.0'
    (tmp_path / 'broken.extxyz').write_text('\n'.join(lines) + '\n')
    said = []
    path = write(
        tmp_path,
        f"""
ensembles:
  T1: {{models: {DATA}/w*.model, reference: {DATA}/train.extxyz}}
targets:
  broken: {{structures: broken.extxyz}}
""",
    )
    inputs = ScreenInputs(path, say=said.append).build()
    n_frames = len(ase.io.read(DATA / 'heldout.extxyz', ':'))
    assert inputs['targets']['broken']['structures'].n_structures == n_frames - 1
    # the second frame begins after a count, a comment and 32 atoms
    assert any('structure 1 (line 35) is left out' in line for line in said)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('targets: [', 'targets.yaml is not YAML'),
        ('nothing', 'must have `ensembles` and `targets`, but holds str'),
        ('ensembles: {}\nmodels: {}\ntargets: {}', 'models'),
        ('ensembles: {A: {models: x*.model, reference: y.extxyz}}\ntargets: {}', r"ensemble 'A': no file matches x\*"),
        (
            'ensembles: {A: {model: x, reference: y}}\ntargets: {}',
            "ensemble 'A': 'model' is not a setting; did you mean 'models'",
        ),
        ('ensembles: {A: {models: 5}}\ntargets: {}', "ensemble 'A': models = 5"),
        ('ensembles: {}\ntargets: {X: 3}', "target 'X': 3 is no entry; it has structures, embeddings"),
        ('ensembles: {}\ntargets: {X-1: {structures: x}}', "target 'X-1': a name is made of letters, digits"),
        ('ensembles: {}\ntargets: {T: {}}', "target 'T': give `structures` or `embeddings`"),
    ],
)
def test_a_wrong_file_of_targets_names_file_and_entry(tmp_path, text, message):
    with pytest.raises(OodalError, match=message):
        ScreenInputs(write(tmp_path, text)).build()


def test_screen_refuses_before_anything_is_submitted(tmp_path):
    result = invoke('screen', write(tmp_path, 'ensembles: {}\ntargets: {}'))
    assert result.exit_code == 1
    assert 'give at least one ensemble' in result.output


def test_options_of_the_file_are_added_to_the_defaults(tmp_path, localhost, daemon_client):
    if daemon_client.is_daemon_running:
        daemon_client.stop_daemon(wait=True)
    text = f"""
ensembles:
  T1: {{models: {DATA}/w*.model, reference: {DATA}/train.extxyz}}
targets:
  hot: {{structures: {DATA}/heldout.extxyz}}
options: {{max_wallclock_seconds: 1800}}
"""
    # All is well but for the daemon.
    with pytest.raises(OodalError, match='daemon is not running'):
        submit_screen(write(tmp_path, text), localhost.label)
    with pytest.raises(OodalError, match='max_wallclock_second'):
        submit_screen(write(tmp_path, text.replace('seconds', 'second')), localhost.label)


@pytest.mark.parametrize('command', ['stats', 'export', 'plot', 'suspects'])
def test_what_is_no_screening_is_refused_with_the_way_out(command):
    result = invoke('scores', command, '987654')
    assert result.exit_code == 1
    assert '`verdi process list -a -L ScreenWorkChain` lists screenings' in result.output


@pytest.mark.slow
def test_stats_say_what_separates_and_what_does_not(screening):
    output = invoke('scores', 'stats', screening.uuid).output
    assert 'aligned_variance (mean) of hot against heldout: separates the sets (AUROC 1.000' in output
    assert 'hidden danger' in output
    assert invoke('scores', 'suspects', screening.uuid).output.startswith('T1: ')


@pytest.mark.slow
def test_export_writes_tables_candidates_and_embeddings_that_can_be_screened_again(screening, tmp_path):
    options = ['--table', 'xlsx', '--table', 'csv', '--structures', 'cif', '--structures', 'poscar', '--embeddings']
    result = invoke('scores', 'export', screening.uuid, '-o', tmp_path, *options)
    assert result.exit_code == 0, result.output
    frame = pandas.read_excel(tmp_path / 'OOD_ALL_SCORES_hot.xlsx')
    scores = screening.outputs.scores['hot']['T1']
    np.testing.assert_allclose(frame['aligned_variance_T1'], scores.get_scores().of('aligned_variance'))
    assert set(frame['scores_T1']) == {scores.uuid}
    assert frame['n_Al'].tolist() == pandas.read_csv(tmp_path / 'OOD_ALL_SCORES_hot.csv')['n_Al'].tolist()
    names = {path.name for path in (tmp_path / 'OOD_labelling' / 'hot').iterdir()}
    expected = {f'hot_{atoms.info["set_index"]:06d}' for atoms in screening.outputs.candidates['hot']}
    assert names == {f'{name}{suffix}' for name in expected for suffix in ('.cif', '.vasp')}

    path = write(
        tmp_path,
        f"""
ensembles:
  T1: {{reference: {screening.outputs.references['T1'].uuid}}}
targets:
  again: {{embeddings: {{T1: embeddings_MACE_T1_w*_on_hot.extxyz}}}}
""",
    )
    inputs = ScreenInputs(path, say=lambda _: None).build()
    latents = inputs['targets']['again']['latents']['T1']
    assert sorted(latents) == ['w1', 'w2', 'w3', 'w4']
    first = latents['w1'].get_array('latents')
    (source,) = [
        link.node
        for link in scores.creator.base.links.get_incoming().all()
        if getattr(link.node, 'model_label', None) == 'w1'
    ]
    np.testing.assert_allclose(first, source.get_array('latents'), atol=1e-7)


@pytest.mark.slow
def test_a_wrong_label_in_a_reference_set_is_a_suspect(screening):
    given = screening.inputs.ensembles['T1']
    frames = list(given['reference'])
    frames[17].arrays['REF_forces'] = 5.0 + frames[17].arrays['REF_forces']
    wrong = StructureSetData(frames)
    fitted = screening.outputs.references['T1'].creator.base.links
    scored = screening.outputs.scores['hot']['T1'].creator.base.links
    links = [*fitted.get_incoming(node_class=LatentsData).all(), *scored.get_incoming(node_class=LatentsData).all()]
    latents = {link.link_label: link.node for link in links}
    ensemble = {'reference': wrong}
    for name in ('reference', 'heldout'):
        own = {label.split('__')[1]: node for label, node in latents.items() if label.startswith(f'{name}__')}
        ensemble[f'{name}_latents'] = own
    target = {label: node for label, node in latents.items() if '__' not in label}
    node = run_get_node(
        ScreenWorkChain,
        ensembles={'T1': ensemble},
        targets={'again': {'structures': screening.inputs.targets['hot']['structures'], 'latents': {'T1': target}}},
    )[1]
    assert node.is_finished_ok, node.exit_message
    assert (
        'structure 17 by its label: force error over aligned_variance' in invoke('scores', 'suspects', node.uuid).output
    )
    assert 'by its label' not in invoke('scores', 'suspects', screening.uuid).output


@pytest.mark.slow
def test_no_copy_writes_the_tables_only(screening, tmp_path):
    invoke('scores', 'export', screening.uuid, '-o', tmp_path, '--no-copy')
    assert [path.name for path in tmp_path.iterdir()] == ['OOD_ALL_SCORES_hot.xlsx']
