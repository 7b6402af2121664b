import shutil
from pathlib import Path

import ase.io
import numpy as np
import pandas
import pytest
from aiida.engine import run_get_node
from aiida.orm import load_computer
from click.testing import CliRunner

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.cli import main
from aiida_oodal.data import LatentsData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.embeddings import write_embeddings
from aiida_oodal.operations.screening import submit_screen
from aiida_oodal.operations.targets import ScreenInputs
from aiida_oodal.workchains.screen import ScreenWorkChain
from aiida_oodal.workchains.screen_inputs import validate_screen

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


def test_what_the_reader_dropped_or_took_for_a_label_is_said(tmp_path):
    frame = ase.io.read(DATA / 'heldout.extxyz', 0)
    forces = frame.arrays.pop('REF_forces')
    frame.arrays['dft_forces'], frame.info['a/b'] = forces, 1
    ase.io.write(tmp_path / 'named.extxyz', frame)
    rows = ''.join(
        f'{i} {1 if s == "Al" else 2} {x} {y} {z} 1 2 3\n'
        for i, (s, (x, y, z)) in enumerate(zip(frame.symbols, frame.positions, strict=True), start=1)
    )
    edge = frame.cell[0, 0]
    (tmp_path / 'run.dump').write_text(
        f'ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(frame)}\nITEM: BOX BOUNDS pp pp pp\n'
        + f'0 {edge}\n' * 3
        + f'ITEM: ATOMS id type x y z fx fy fz\n{rows}'
    )
    said = []
    text = f"""
ensembles:
  T1: {{models: {DATA}/w*.model, reference: {DATA}/train.extxyz}}
targets:
  named: {{structures: named.extxyz, labels: {{forces: dft_forces}}}}
  md: {{structures: run.dump, elements: [Al, Cu]}}
"""
    targets = ScreenInputs(write(tmp_path, text), say=said.append).build()['targets']
    np.testing.assert_allclose(targets['named']['structures'].get_set().arrays['REF_forces'], forces)
    assert "  'a/b' is kept as 'a_b': names are of letters, digits and underscores" in said
    assert 'REF_forces' not in targets['md']['structures'].get_set().arrays
    assert any(line.startswith('  forces of a lammps-dump-text file are those of the potential') for line in said)
    with pytest.raises(OodalError, match=r'types of LAMMPS .here 2. are not elements'):
        ScreenInputs(write(tmp_path, text.replace(', elements: [Al, Cu]', ''))).build()


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
    with pytest.raises(OodalError, match='no daemon is running'):
        submit_screen(write(tmp_path, text), localhost.label, print)
    with pytest.raises(OodalError, match='max_wallclock_second'):
        submit_screen(write(tmp_path, text.replace('seconds', 'second')), localhost.label, print)


def embeddings(folder, model, frames, label='w1'):
    """Write a file of embeddings with made-up latents."""
    rng = np.random.default_rng(0)
    path = folder / f'embeddings_MACE_{model}_{label}_on_{len(frames)}.extxyz'
    write_embeddings(path, frames, [rng.normal(size=(len(atoms), 3)) for atoms in frames])
    return path


def test_embeddings_of_another_ensemble_are_refused_by_their_name(tmp_path):
    frames = ase.io.read(DATA / 'heldout.extxyz', ':6')
    names = [
        embeddings(tmp_path, model, own).name for model, own in (('T1', frames), ('T1', frames[:2]), ('T3', frames[:2]))
    ]
    text = """
ensembles: {{T1: {{reference_embeddings: {0}}}}}
targets: {{hot: {{embeddings: {{T1: {1}}}}}}}
"""
    assert ScreenInputs(write(tmp_path, text.format(names[0], names[1])), say=lambda _: None).build()
    wrong = text.format(names[0], names[2])
    with pytest.raises(OodalError, match=r"target 'hot': these embeddings are of T3 by the name"):
        ScreenInputs(write(tmp_path, wrong), say=lambda _: None).build()
    inputs = ScreenInputs(write(tmp_path, f'{wrong}insist: true'), say=lambda _: None).build()
    assert inputs['insist'].value
    # An ensemble may have another name than its files, if all of them agree.
    other = text.format(names[0], names[1]).replace('T1:', 'mine:')
    assert ScreenInputs(write(tmp_path, other), say=lambda _: None).build()
    with pytest.raises(OodalError, match='these embeddings are of T3'):
        ScreenInputs(write(tmp_path, wrong.replace('T1:', 'mine:')), say=lambda _: None).build()


def test_the_file_of_each_member_is_said_and_stages_are_refused(tmp_path, localhost):
    for name in ('T1_w1', 'T1_w2', 'T1_w1_stagetwo'):
        shutil.copy(DATA / f'{name[3:5]}.model', tmp_path / f'{name}.model')
    text = """
ensembles: {{T1: {{models: {}, reference: {}/train.extxyz}}}}
targets: {{hot: {{structures: {}/heldout.extxyz}}}}
"""
    said = []
    good = write(tmp_path, text.format('[T1_w1.model, T1_w2.model]', DATA, DATA))
    ScreenInputs(good, say=said.append).build()
    assert said[0] == f'ensemble T1: w1 is {tmp_path}/T1_w1.model, w2 is {tmp_path}/T1_w2.model'
    with pytest.raises(OodalError, match=r"ensemble 'T1': 2 files are of one seed, w1: .*T1_w1_stagetwo\.model"):
        ScreenInputs(write(tmp_path, text.format('T1_w*.model', DATA, DATA)), say=said.append).build()
    # The same file under two labels is refused by its content, before there is a job.
    with pytest.raises(OodalError, match='the models a and b are the same file'):
        submit_screen(
            write(tmp_path, text.format('{a: T1_w1.model, b: T1_w1_stagetwo.model}', DATA, DATA)), 'localhost', print
        )


@pytest.mark.parametrize('command', ['stats', 'export', 'plot', 'suspects'])
def test_what_is_no_screening_is_refused_with_the_way_out(command):
    result = invoke('scores', command, '987654')
    assert result.exit_code == 1
    assert '`verdi process list -a -L ScreenWorkChain` lists those there are' in result.output


@pytest.mark.slow
def test_stats_say_what_separates_and_what_does_not(screening):
    output = invoke('scores', 'stats', screening.uuid).output
    assert 'overall (either) of hot against heldout: separates the sets (AUROC 1.000' in ' '.join(output.split())
    assert 'hidden' in output
    # What a terminal of 80 columns shows, and a reader reads.
    assert max(map(len, output.splitlines())) <= 80
    assert len(output.splitlines()) < 60
    everything = invoke('scores', 'stats', screening.uuid, '--all').output
    assert max(map(len, everything.splitlines())) <= 80
    assert 'heldout: % above thresholds' in everything
    assert len(everything.splitlines()) < 90
    assert invoke('scores', 'suspects', screening.uuid).output.startswith('T1: ')


@pytest.mark.slow
def test_export_writes_tables_candidates_and_embeddings_that_can_be_screened_again(screening, tmp_path):
    options = ['--table', 'xlsx', '--table', 'csv', '--structures', 'cif', '--structures', 'poscar', '--embeddings']
    result = invoke('scores', 'export', screening.uuid, '-o', tmp_path, *options)
    assert result.exit_code == 0, result.output
    frame = pandas.read_excel(tmp_path / 'OOD_ALL_SCORES_hot.xlsx', sheet_name='scores')
    scores = screening.outputs.scores['hot']['T1']
    np.testing.assert_allclose(frame['aligned_variance_T1'], scores.get_scores().of('aligned_variance'))
    about = pandas.read_excel(tmp_path / 'OOD_ALL_SCORES_hot.xlsx', sheet_name='about')
    assert f'{scores.uuid} (UUID)' in set(about['meaning'])
    work = pandas.read_excel(tmp_path / 'OOD_ALL_SCORES_hot.xlsx')
    assert list(work)[:6] == ['name', 'candidate', 'verdict', 'because', 'rank', 'reason']
    assert len(list(work)) < 12
    taken = [entry['structure'] for entry in screening.outputs.decisions['hot'].get_dict()['taken']]
    # The candidates stand first, in the order in which they were taken.
    assert work['structure'][: len(taken)].tolist() == taken
    assert work['candidate'][: len(taken)].tolist() == list(range(1, len(taken) + 1))
    assert work['candidate'][len(taken) :].isna().all()
    assert '(limit ' in work['because'][0]
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
    links = scores.creator.base.links.get_incoming(node_class=LatentsData).all()
    (source,) = [link.node for link in links if link.link_label == 'sets__hot__w1_0']
    np.testing.assert_allclose(first, source.get_array('latents'), atol=1e-7)
    # What is read again is known to be of the same model and of the same structures.
    assert latents['w1'].identity.sha256 == source.identity.sha256
    judge = {'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}}
    assert validate_screen(inputs | {'judge': judge}, None) is None


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
    target = {label.split('__')[2]: node for label, node in latents.items() if label.startswith('sets__hot__')}
    node = run_get_node(
        ScreenWorkChain,
        ensembles={'T1': ensemble},
        targets={'again': {'structures': screening.inputs.targets['hot']['structures'], 'latents': {'T1': target}}},
        judge={'code': get_engine_code(), 'metadata': {'computer': load_computer('localhost')}},
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
