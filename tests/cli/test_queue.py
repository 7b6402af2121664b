"""Every command of the queue, and everything that it refuses."""

import itertools
import json

import ase.io
import click
import numpy as np
import pytest
from aiida import orm
from ase.build import bulk
from ase.calculators.emt import EMT
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.cli.queue import queue
from aiida_oodal.data import ClusterData, StructureSetData
from aiida_oodal.engine.carve.cluster import extract_cluster, take_whole
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.queue import LevelOfTheory, QueueStatus, claim, complete, enqueue, fail, get_entries

LEVEL = LevelOfTheory('test.cli', {}, 'a level of the tests')
#: Atoms that no other test of this session has.
NUMBERS = itertools.count()


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ['queue', *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return ' '.join(result.output.split())


def make_atoms(symbol='Ag'):
    atoms = bulk(symbol, cubic=True)
    atoms.positions[1, 0] += 0.3 + 1e-3 * next(NUMBERS)
    return atoms


def make_entries(count, level=LEVEL, campaign='cli'):
    nodes = [orm.StructureData(ase=make_atoms()).store() for _ in range(count)]
    made = enqueue(nodes, level, campaign=campaign)
    return [made[node.uuid].key for node in nodes]


def status(key):
    return get_entries([key])[key].status


@pytest.mark.parametrize('name', sorted(queue.commands))
def test_every_help_has_an_example_of_this_command(name):
    result = CliRunner().invoke(main, ['queue', name, '--help'])
    assert result.exit_code == 0
    assert 'Example' in result.output
    assert f'aiida-oodal queue {name} ' in result.output.replace('\n', ' ')


def test_list_counts_and_shows_what_is_known():
    campaign = orm.WorkChainNode().store()
    keys = make_entries(3, campaign=campaign.uuid)
    claim('x', keys=keys[:1])
    fail({keys[0]: 'the SCF did not converge'})
    said = invoke('list', '--campaign', campaign.pk)
    assert said.startswith('2 PENDING_DFT, 0 SUBMITTED, 0 LABELLED, 1 FAILED, 0 REJECTED')
    assert all(key[:10] in said for key in keys)
    assert 'the SCF did not converge' in said
    assert 'a level of the tests' in said
    assert '2 more: -n 3 lists all' in invoke('list', '--campaign', campaign.pk, '-n', 1)
    found = json.loads(invoke('list', '--campaign', campaign.pk, '--status', 'failed', '--json'))
    assert [entry['key'] for entry in found] == keys[:1]
    assert invoke('list', '--campaign', campaign.uuid, '--element', 'Cu').endswith('0 REJECTED')


def test_show_says_what_it_is_and_who_asked():
    process = orm.WorkChainNode().store()
    (key,) = make_entries(1, campaign=process.uuid)
    claim('x', keys=[key])
    said = invoke('show', key[:14])
    for text in (key, 'SUBMITTED', 'Ag4, 4 atoms', 'a level of the tests (test.cli', f'<{process.pk}>', 'attempts 1'):
        assert text in said
    atoms = make_atoms()
    atoms.info |= {'queue_key': key, 'REF_energy': -1.5}
    atoms.arrays['REF_forces'] = atoms.positions * 0 + 0.5
    complete({key: StructureSetData([atoms]).store().uuid}, hours={key: 0.25})
    said = invoke('show', key)
    assert '-1.500000 eV, largest force 0.8660' in said
    assert 'core hours 0.25' in said


def test_levels_are_listed_with_their_hashes():
    make_entries(1)
    assert f'{LEVEL.hash} test.cli a level of the tests: ' in invoke('levels')


def test_structures_of_any_kind_are_added_and_added_once():
    content = StructureSetData([make_atoms(), make_atoms(), make_atoms()]).store()
    assert invoke('add', content.pk, '-n', 2, '--priority', 3).startswith('2 structures are in the queue, 2 of them')
    found = json.loads(invoke('list', '--level', '', '--json', '-n', 1000))
    assert sum(entry['priority'] == 3 for entry in found) == 2
    before = len(found)
    invoke('add', content.uuid)
    assert len(json.loads(invoke('list', '--level', '', '--json', '-n', 1000))) == before + 1
    node = orm.StructureData(ase=make_atoms()).store()
    assert invoke('add', node.pk).startswith('1 structures are in the queue')


def test_retry_reject_and_prioritise_move_entries():
    campaign = orm.WorkChainNode().store()
    keys = make_entries(3, campaign=campaign.uuid)
    claim('x', keys=keys[:1])
    fail({keys[0]: 'no'})
    assert '2 entries are rejected' in invoke('reject', '--campaign', campaign.pk, '--reason', 'not physical')
    assert [status(key) for key in keys] == [QueueStatus.FAILED, QueueStatus.REJECTED, QueueStatus.REJECTED]
    assert '1 entries wait again' in invoke('retry', '--campaign', campaign.pk)
    assert '1 entries wait again' in invoke('retry', keys[1])
    assert [status(key) for key in keys] == [QueueStatus.PENDING_DFT, QueueStatus.PENDING_DFT, QueueStatus.REJECTED]
    assert '3 entries have the priority 7' in invoke('prioritise', 7, '--campaign', campaign.pk)
    assert {entry.priority for entry in get_entries(keys).values()} == {7}


def test_labels_come_from_outside(tmp_path):
    keys = make_entries(3, level=None)
    path = tmp_path / 'to_label.extxyz'
    said = invoke('export', path, *keys, '--theory', 'EMT of ASE')
    assert said.startswith(f'3 structures: {tmp_path}'.replace('\n', ' ')) or '3 structures' in said
    frames = ase.io.read(path, ':')
    asked = [atoms.info['queue_key'] for atoms in frames]
    assert not set(asked) & set(keys)  # they have a level now
    for atoms in frames:
        atoms.calc = EMT()
        atoms.get_forces()
    frames[2].positions += [[0.2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    frames[2].calc.results = {'energy': 1.0, 'forces': frames[2].positions}
    frames[2].calc.atoms = frames[2].copy()
    ase.io.write(tmp_path / 'labelled.extxyz', frames)
    assert '2 labels would be entered, 0 were there, 1 are refused' in invoke(
        'import', tmp_path / 'labelled.extxyz', '--dry-run'
    )
    said = invoke('import', tmp_path / 'labelled.extxyz')
    assert '2 labels were entered, 0 were there, 1 are refused' in said
    assert 'frame 2' in said
    assert [status(key) for key in asked] == [QueueStatus.LABELLED, QueueStatus.LABELLED, QueueStatus.PENDING_DFT]
    assert '0 labels were entered, 2 were there' in invoke('import', tmp_path / 'labelled.extxyz')
    for name in ('labelled.traj', 'labelled.extxyz.gz'):  # by the one reader for all ways in
        ase.io.write(tmp_path / name, frames)
        assert '0 labels were entered, 2 were there, 1 are refused' in invoke('import', tmp_path / name)
    for kind, name in (('poscar', 'POSCAR'), ('qe', 'pw.in')):
        invoke('export', tmp_path / kind, asked[2], '--format', kind)
        assert (tmp_path / kind / asked[2] / name).exists()


def test_labels_are_written_as_a_file_that_comes_back(tmp_path):
    process = orm.WorkChainNode().store()
    keys = make_entries(3, campaign=process.uuid)
    claim('x', keys=keys[:2])
    frames = []
    for key in keys[:2]:
        atoms = get_entries([key])[key].load_node().get_ase()
        frames.append(label_structure(atoms, EMT()))
        frames[-1].info['queue_key'] = key
    frames[0].arrays['force_mask'] = np.array([1.0, 0.0, 0.0, 0.0])
    labels = StructureSetData(frames).store()
    complete(dict.fromkeys(keys[:2], labels.uuid))
    path = tmp_path / 'new' / 'labels.extxyz'
    assert '2 labels: ' in invoke('export', path, '--labels', '--campaign', process.pk)
    assert '1 labels: ' in invoke('export', tmp_path / 'one.extxyz', '--labels', keys[1])
    found = {atoms.info['queue_key']: atoms for atoms in ase.io.read(path, ':')}
    assert set(found) == set(keys[:2])
    for key, frame in zip(keys, frames, strict=False):
        np.testing.assert_allclose(found[key].arrays['REF_forces'], frame.arrays['REF_forces'], atol=1e-7)
        assert found[key].info['theory'] == LEVEL.text
    back = list(StructureSetData.from_file(path))
    np.testing.assert_array_equal(back[keys[0] != back[0].info['queue_key']].arrays['force_mask'], [1, 0, 0, 0])
    assert all('REF_energy' in atoms.info for atoms in back)


def test_a_whole_snapshot_has_the_k_points_of_its_cell_and_a_cluster_gamma(tmp_path):
    snapshot = make_atoms() * 2
    nodes = [
        ClusterData(take_whole(snapshot, 4)),
        ClusterData(extract_cluster(snapshot, 4, 3.0, 1.0, cutoff=4.0, repair='drop', bond_scale=0.75)),
    ]
    keys = [entry.key for entry in enqueue([node.store() for node in nodes], LEVEL).values()]
    invoke('export', tmp_path, *keys, '--format', 'qe')
    points = {key: (tmp_path / key / 'pw.in').read_text().partition('K_POINTS ')[2].split()[0] for key in keys}
    assert list(points.values()) == ['automatic', 'gamma']


def test_an_entry_is_one_line_in_a_pipe_and_fits_where_a_width_is_said(monkeypatch):
    (key,) = make_entries(1)
    claim('x', keys=[key])
    fail({key: 'it did not converge ' * 30})
    result = CliRunner().invoke(main, ['queue', 'list', key])
    (line,) = [line for line in result.output.splitlines() if key[:10] in line]
    assert line.count('it did not converge') == 30
    monkeypatch.setenv('COLUMNS', '80')
    result = CliRunner().invoke(main, ['queue', 'list', key])
    assert max(map(len, result.output.splitlines())) <= 80


def test_export_warns_of_what_is_computed_here(tmp_path):
    keys = make_entries(1)
    said = invoke('export', tmp_path / 'x.extxyz', *keys)
    assert '1 of them belong to a level of theory that is computed here: labels from outside are refused' in said
    frame = ase.io.read(tmp_path / 'x.extxyz')
    frame.calc = EMT()
    frame.get_forces()
    ase.io.write(tmp_path / 'y.extxyz', frame)
    said = invoke('import', tmp_path / 'y.extxyz', code=1)
    assert "belongs to the level of theory 'a level of the tests' (test.cli)" in said


@pytest.mark.slow
@pytest.mark.daemon
def test_what_waits_is_labelled_without_a_campaign(daemon_client, localhost):
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(1)
    keys = make_entries(2, level=None, campaign='drain')
    other = make_entries(1)  # of another level
    arguments = ('--with', 'oodal.label.ase', '--set', 'calculator.calculator=emt')
    said = invoke('label', *keys, *other, *arguments)
    assert 'with 2 structures' in said
    assert '2 of 2 structures are labelled' in said
    assert status(other[0]) is QueueStatus.PENDING_DFT
    said = invoke('label', *other, *arguments, code=1)
    assert 'nothing waits that oodal.label.ase may label' in said
    assert '1 that wait are of other levels of theory' in said


def refusals(tmp_path):
    """Yield arguments and what is said of them."""
    (labelled, pending, waiting) = make_entries(3)
    claim('x', keys=[labelled, pending])
    complete({labelled: 'label'})
    (free,) = make_entries(1, level=None)
    node = orm.Int(1).store()
    text, frame, broken = tmp_path / 'frames.extxyz', make_atoms(), tmp_path / 'broken.yaml'
    ase.io.write(text, frame)
    broken.write_text('[1, 2')
    emt = ('--with', 'oodal.label.ase', '--set', 'calculator.calculator=emt')
    yield ('list', '--status', 'LOST'), "'LOST' is not one of"
    yield ('list', '--older-than', '5'), "'5' is no length of time: write 30m, 12h, 3d or 2w"
    yield ('list', '--element', 'Xx'), '--element Xx is no chemical element'
    yield ('list', '--campaign', '99999999'), 'give the PK or UUID of a node'
    yield ('list', 'zz'), "no entry of the queue begins with 'zz'"
    yield ('show', 'zz'), "no entry of the queue begins with 'zz'"
    yield ('show', 'q'), 'give more letters'
    yield ('add', '99999999'), 'give the PK or UUID of a node'
    yield ('add', node.pk), 'has no structures to label: give a screening'
    yield ('add', node.pk, '--carve', '--cutoff', 5), 'is no screening: it has no targets, and no scores'
    yield ('add', node.pk, '--cutoff', 5), '--cutoff can only be given with --carve'
    yield ('retry',), 'say which entries you mean: KEYs or filters'
    yield (
        ('retry', labelled),
        'is LABELLED and cannot become PENDING_DFT; from there it can go to nothing: a label is never taken away',
    )
    yield ('reject', '--reason', 'x'), 'say which entries you mean: KEYs or filters'
    yield ('reject', waiting), "Missing option '--reason'"
    yield ('reject', pending, '--reason', 'x'), 'is SUBMITTED and cannot become REJECTED'
    yield ('prioritise', '5'), 'say which entries you mean: KEYs or filters'
    yield ('prioritise', 'high', waiting), "'high' is not a valid integer"
    yield ('export', tmp_path / 'x', waiting, '--format', 'cif'), "'cif' is no format for export; there are extxyz"
    yield ('export', tmp_path / 'x', free), 'have no level of theory yet: say what will compute them'
    yield ('export', tmp_path / 'x', free, '--theory', ' '), 'say what computes the labels in 1 to 60 letters'
    yield ('export', tmp_path / 'x', '--gamma-above', 1e9), 'there is nothing to export'
    yield ('export', tmp_path / 'x', '--labels', waiting), 'none of these entries has a label'
    yield ('export', tmp_path / 'x', '--labels', '--format', 'qe'), '--labels writes extended XYZ'
    yield ('import', tmp_path / 'nothing'), 'does not exist'
    yield ('import', text), 'it does not name its entry: queue_key=... is missing'
    yield ('label', waiting, '--with', 'oodal.md.base'), "'oodal.md.base' is no labeller"
    yield ('label', waiting, '--with', 'nothing'), "there is no labeller 'nothing'"
    yield ('label', labelled, *emt), 'nothing waits that oodal.label.ase may label'
    yield ('label', '--status', 'FAILED', *emt), 'what is labelled is PENDING_DFT; `aiida-oodal queue retry`'
    yield ('label', free, '--with', 'oodal.label.ase', '--set', 'calculator'), "'calculator' is not NAME=VALUE"
    yield ('label', free, *emt, '--set', 'calculator.calculator.x=1'), "calculator is 'emt' and has no entries"
    yield ('label', free, *emt, '--set', 'sise=1'), 'sise'
    yield ('label', free, *emt, '--settings', broken), 'broken.yaml is not YAML'
    yield ('label', free, *emt, '--computer', 'nowhere'), 'nowhere'
    yield ('label', free, *emt, '--code', 'nothing@localhost'), '`verdi code list` lists what there is'
    yield ('label', free, *emt, '--option', 'sise=1'), 'sise'


def test_every_refusal_says_what_to_do(tmp_path, localhost):
    for arguments, message in refusals(tmp_path):
        result = CliRunner().invoke(main, ['queue', *(str(argument) for argument in arguments)])
        assert isinstance(result.exception, SystemExit), (arguments, result.exception)
        assert result.exit_code != 0, arguments
        assert message in ' '.join(result.output.split()), (arguments, result.output)


def test_commands_are_those_of_the_issue():
    names = {'list', 'show', 'levels', 'add', 'export', 'import', 'label', 'retry', 'reject', 'prioritise'}
    assert set(queue.commands) == names
    assert all(isinstance(command, click.Command) for command in queue.commands.values())
