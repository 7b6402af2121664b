"""Somebody computes elsewhere: the labeller waits for people, through restarts, and takes what fits."""

import itertools
import time

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node, submit
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.queue import QueueStatus, enqueue, find_entries, get_entries, reject
from aiida_oodal.queue.exchange import export_entries, import_file
from aiida_oodal.queue.outside import find_waiting, wake_waiting
from aiida_oodal.workchains.label.ase import AseLabelWorkChain
from aiida_oodal.workchains.label.outside import OutsideLabelWorkChain

#: Seeds that no other test of this session takes: the same atoms would be labelled already.
COUNT = itertools.count(300, 10)


def crystals(*seeds):
    nodes = {}
    for seed in seeds:
        atoms = bulk('Cu', cubic=True)
        atoms.symbols[seed % 4] = 'Au'
        atoms.rattle(0.1, seed=seed)
        nodes[f'c{seed}'] = orm.StructureData(ase=atoms)
    return nodes


def make_builder(clusters, level='EMT of ASE', **more):
    builder = OutsideLabelWorkChain.get_builder_from_protocol(overrides={'level': level})
    builder.clusters = clusters
    for name, value in more.items():
        setattr(builder, name, value)
    return builder


def label_by_emt(path, output, keep=slice(None)):
    """What somebody does who knows nothing of AiiDA."""
    frames = ase.io.read(path, index=':')[keep]
    for atoms in frames:
        atoms.calc = EMT(asap_cutoff=False)
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
    ase.io.write(output, frames, format='extxyz')
    return output


def wait_until(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'{what}: not in {seconds} s'
        time.sleep(0.2)


def reload(node):
    return orm.load_node(node.pk)


@pytest.mark.slow
@pytest.mark.daemon
def test_it_waits_through_restarts_and_goes_on_when_all_labels_are_there(daemon_client, tmp_path):
    daemon_client.start_daemon(1)
    node = submit(make_builder(crystals(200, 201, 202, 203)))
    wait_until(lambda: reload(node).paused, 'it waits')
    assert reload(node).process_status == (
        'waits for 4 of 4 labels from outside: `aiida-oodal queue export`, compute, `aiida-oodal queue import FILE`'
    )
    assert [process.pk for process in find_waiting()] == [node.pk]
    entries = find_entries(campaign=node.uuid)
    assert {entry.status for entry in entries} == {QueueStatus.SUBMITTED}
    for _ in range(2):
        daemon_client.stop_daemon()
        daemon_client.start_daemon(1)
    (path,) = export_entries(entries, tmp_path / 'to_label.extxyz', 'extxyz')

    # a part comes back: it waits for the rest
    outcome = import_file(label_by_emt(path, tmp_path / 'first.extxyz', keep=slice(0, 1)))
    assert (len(outcome.accepted), outcome.refused) == (1, [])
    assert [process.pk for process in wake_waiting()] == [node.pk]
    wait_until(lambda: 'waits for 3 of 4' in (reload(node).process_status or ''), 'it counts')
    assert reload(node).paused

    # the rest comes back while nobody looks
    daemon_client.stop_daemon()
    outcome = import_file(label_by_emt(path, tmp_path / 'all.extxyz'))
    assert (len(outcome.known), len(outcome.accepted), outcome.refused) == (1, 3, [])
    daemon_client.start_daemon(1)
    wait_until(lambda: reload(node).is_terminated, 'it ends')
    node = reload(node)
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.failures.get_dict() == {}
    labels = {atoms.info['queue_key']: atoms for atoms in node.outputs.labels}
    for entry in find_entries(campaign=node.uuid):
        atoms = entry.load_node().get_ase()
        atoms.calc = EMT(asap_cutoff=False)
        np.testing.assert_allclose(labels[entry.key].arrays['REF_forces'], atoms.get_forces(), atol=1e-6)
        assert labels[entry.key].info['level_of_theory'] == OutsideLabelWorkChain.get_level(node.inputs).hash
        made = orm.load_node(entry.label).creator
        assert made.process_label == 'import_labels'
        assert made.inputs.structures[entry.key].uuid == entry.node if 'structures' in made.inputs else True
    daemon_client.stop_daemon()


@pytest.mark.slow
@pytest.mark.daemon
def test_a_time_limit_ends_the_waiting_and_a_user_can_give_up(daemon_client, tmp_path):
    daemon_client.start_daemon(1)
    clusters = crystals(210, 211)
    limited = submit(make_builder(clusters, 'a slow code', enough=orm.Dict({'hours': 0.003})))
    given_up = submit(make_builder(crystals(212, 213), 'a slow code'))
    wait_until(lambda: reload(limited).paused and reload(given_up).paused, 'they wait')
    (path,) = export_entries(find_entries(campaign=limited.uuid), tmp_path / 'two.extxyz', 'extxyz')
    import_file(label_by_emt(path, tmp_path / 'one.extxyz', keep=slice(0, 1)))
    one, two = find_entries(campaign=given_up.uuid)
    reject([one.key, two.key], 'too large for us')
    assert {process.pk for process in wake_waiting()} == {limited.pk, given_up.pk}
    wait_until(lambda: reload(given_up).is_terminated and reload(limited).is_terminated, 'they end')
    assert reload(limited).is_finished_ok
    assert reload(limited).outputs.labels.n_structures == 1
    assert len(reload(limited).outputs.failures.get_dict()) == 1
    assert reload(given_up).exit_status == 401
    assert 'too large for us' in reload(given_up).exit_message
    # what was not waited for waits for the next who asks
    late = next(entry for entry in find_entries(campaign=limited.uuid) if entry.status is not QueueStatus.LABELLED)
    again, process = run_get_node(
        make_builder(
            {'late': clusters['c210'], 'too': clusters['c211']}, 'a slow code', enough=orm.Dict({'share': 0.5})
        )
    )
    assert process.is_finished_ok
    assert again['labels'].n_structures == 1
    assert late.key in {entry.key for entry in find_entries(campaign=process.uuid)}
    daemon_client.stop_daemon()


@pytest.fixture
def asked():
    """Return entries that wait for labels from outside."""

    def ask(number=2, level='by hand'):
        start = next(COUNT)
        clusters = crystals(*range(start, start + number))
        nodes = [node.store() for node in clusters.values()]
        inputs = {'level': orm.Str(level)}
        return list(enqueue(nodes, OutsideLabelWorkChain.get_level(inputs)).values())

    return ask


def test_labels_come_back_from_poscar_in_another_order_and_in_ours(asked, tmp_path):
    entries = asked()
    paths = export_entries(entries, tmp_path, 'poscar')
    assert paths == [tmp_path / entry.key / 'POSCAR' for entry in entries]
    frames = []
    for path in paths:
        atoms = ase.io.read(path, format='vasp')
        assert path.read_text().splitlines()[0] == path.parent.name
        assert atoms.get_chemical_symbols() == sorted(atoms.get_chemical_symbols())
        atoms.info['queue_key'] = path.parent.name
        atoms.calc = EMT(asap_cutoff=False)
        atoms.get_forces()
        frames.append(atoms)
    ase.io.write(tmp_path / 'back.extxyz', frames, format='extxyz')
    outcome = import_file(tmp_path / 'back.extxyz')
    assert (len(outcome.accepted), outcome.refused) == (2, [])
    for entry in entries:
        atoms = entry.load_node().get_ase()
        atoms.calc = EMT(asap_cutoff=False)
        labels = {frame.info['queue_key']: frame for frame in outcome.labels[0]}
        assert labels[entry.key].get_chemical_symbols() == atoms.get_chemical_symbols()
        np.testing.assert_allclose(labels[entry.key].arrays['REF_forces'], atoms.get_forces(), atol=1e-6)
        assert get_entries([entry.key])[entry.key].status is QueueStatus.LABELLED


def test_inputs_for_quantum_espresso_name_their_entry(asked, tmp_path):
    entries = asked()
    for entry, path in zip(entries, export_entries(entries, tmp_path, 'qe'), strict=True):
        text = path.read_text()
        assert path == tmp_path / entry.key / 'pw.in'
        assert f"'{entry.key}'" in text
        assert 'K_POINTS automatic' in text
        read = ase.io.read(path, format='espresso-in')
        np.testing.assert_allclose(read.positions, entry.load_node().get_ase().positions, atol=1e-6)


def test_every_refusal_says_why_and_costs_no_other(asked, engine_code, localhost, tmp_path):
    good, moved, double, bare, huge = asked(5)
    (failed,), (other,) = asked(1), asked(1)
    reject([failed.key], 'looks like a typo')
    ase_node = crystals(299)['c299'].store()
    level = AseLabelWorkChain.get_level({'calculator': orm.Dict({'calculator': 'emt'})})
    of_ase = enqueue([ase_node], level)[ase_node.uuid]
    free_node = crystals(298)['c298'].store()
    free = enqueue([free_node], None)[free_node.uuid]
    entries = [good, moved, double, bare, huge, failed, other, of_ase]
    (path,) = export_entries(entries, tmp_path / 'out.extxyz', 'extxyz')
    label_by_emt(path, path)
    frames = {atoms.info['queue_key']: atoms for atoms in ase.io.read(path, index=':')}
    frames[moved.key].positions[2, 0] += 0.2
    frames[bare.key].calc = None
    frames[huge.key].calc.results['forces'] *= 1e6
    unknown = frames[good.key].copy()
    unknown.calc = frames[good.key].calc
    unknown.info['queue_key'] = 'q0'
    nameless = frames[other.key].copy()
    del nameless.info['queue_key']
    homeless = free_node.get_ase()
    homeless.info['queue_key'] = free.key
    given = [frames[entry.key] for entry in (good, moved, double, double, bare, huge, failed, of_ase)]
    ase.io.write(path, [*given, unknown, nameless, homeless], format='extxyz')
    with path.open('a') as handle:
        handle.write('4\nProperties=species:S:1:pos:R:3\nAl 0 0\n')
    rehearsal = import_file(path, dry_run=True)
    assert get_entries([good.key])[good.key].status is QueueStatus.PENDING_DFT
    outcome = import_file(path)
    assert rehearsal.accepted == outcome.accepted == [good.key, double.key]
    assert rehearsal.refused == outcome.refused
    reasons = {refusal.place.split(' (')[0]: refusal.reason for refusal in outcome.refused}
    for frame, reason in {
        'frame 1': 'atom 2 (Cu) is 0.2 angstrom away from where it was',
        'frame 3': f'entry {double.key} occurs earlier in the file',
        'frame 4': 'it has no energy: REF_energy is looked for',
        'frame 5': 'eV/angstrom (limit 1000): are they in other units',
        'frame 6': f'entry {failed.key} is REJECTED (looks like a typo): `aiida-oodal queue retry {failed.key}` first',
        'frame 7': "belongs to the level of theory 'emt' (oodal.label.ase)",
        'frame 8': 'q0 is no entry of this queue',
        'frame 9': 'it does not name its entry: queue_key=... is missing',
        'frame 10': 'has no level of theory yet: `aiida-oodal queue export --theory',
        'frame 11': 'the file ends after 1 of 4 atoms',
    }.items():
        assert reason in reasons.pop(frame)
    assert reasons == {}
    assert get_entries([other.key])[other.key].status is QueueStatus.PENDING_DFT

    # a label stays: the same again is known, another is refused
    assert import_file(path).known == [good.key, double.key]
    frames[good.key].calc.results['energy'] += 1.0
    frames[good.key].calc.results.pop('free_energy', None)
    ase.io.write(path, [frames[good.key]], format='extxyz')
    (refusal,) = import_file(path).refused
    assert f'entry {good.key} has another label already' in refusal.reason


def test_what_has_no_level_is_not_exported(tmp_path):
    node = crystals(297)['c297'].store()
    entry = enqueue([node], None)[node.uuid]
    with pytest.raises(Exception, match=r'have no level of theory yet: .* --theory "PBE'):
        export_entries([entry], tmp_path / 'x.extxyz', 'extxyz')
    with pytest.raises(Exception, match="'cif' is no format for export; there are extxyz, poscar, qe"):
        export_entries([entry], tmp_path / 'x', 'cif')


@pytest.mark.parametrize('level', ['', '  ', 'x' * 61])
def test_a_level_must_say_something(level):
    with pytest.raises(ValueError, match='say what computes the labels in 1 to 60 letters'):
        run_get_node(make_builder(crystals(1), level))
