"""One campaign, labelled by an ASE calculator, by a user's program and from outside; what it asked for also by xTB."""

import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node, submit
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.data import StructureSetData
from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.queue.exchange import export_entries, import_file
from aiida_oodal.queue.outside import find_waiting, wake_waiting
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.label.ase import AseLabelWorkChain

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

PROGRAM = Path(__file__).with_name('emt_program.py')
EMT_CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}


def make_crystals(count):
    """Return cold cells of 32 atoms, a quarter of them of another element."""
    random = np.random.default_rng(5)
    frames = []
    for _ in range(count):
        atoms = bulk('Al', 'fcc', a=3.95 * (1 + random.uniform(-0.02, 0.02)), cubic=True).repeat(2)
        atoms.symbols[random.random(len(atoms)) < 0.25] = 'Cu'
        atoms.positions += random.normal(scale=0.05, size=(len(atoms), 3))
        frames.append(atoms)
    return StructureSetData(frames)


@pytest.fixture
def launch(daemon_client, engine_code, localhost):
    """Return a function that submits the campaign with a labeller."""
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)

    def start(labeller, overrides):
        walker = bulk('Al', 'fcc', a=3.95, cubic=True).repeat(3)
        walker.symbols[np.random.default_rng(1).random(len(walker)) < 0.25] = 'Cu'
        return submit(
            CampaignWorkChain.get_builder_from_protocol(
                code=engine_code,
                computer=localhost,
                protocol='quick',
                labeller=labeller,
                initial_structures=make_crystals(4),
                walkers={
                    'hot': {
                        'structure': StructureSetData([walker]),
                        'settings': {'temperature': [300, 2000], 'velocity_seed': 7, 'steps': 200},
                    }
                },
                overrides={
                    'label': overrides,
                    'train': {'cutoff': 4.0, 'number_of_functions': 30, 'max_functions': 30},
                    'carve': {'radius': 2.5, 'buffer': 1.5},
                    'select': {'max_clusters': 2},
                    'max_rounds': 1,
                },
            )
        )

    return start


def wait(campaign, meanwhile=lambda: None):
    end = time.monotonic() + 800
    while not campaign.is_terminated:
        assert time.monotonic() < end, campaign.process_state
        meanwhile()
        time.sleep(0.5)
    assert campaign.exit_status in (0, 501), campaign.exit_message  # one round is all that it may
    return campaign


def labels_of(campaign):
    """Return what was labelled, round by round, in an order that does not depend on keys."""
    found = {}
    for name, node in campaign.outputs.labels.items():
        found[name] = sorted(node, key=lambda atoms: (len(atoms), atoms.info['REF_energy']))
    return found


def check_same(one, other):
    """The same structures, and the same labels."""
    first, second = labels_of(one), labels_of(other)
    assert list(first) == list(second)
    assert len(first) == 2  # the crystals, and the clusters of round 1
    for name in first:
        assert len(first[name]) == len(second[name]) > 0
        for left, right in zip(first[name], second[name], strict=True):
            assert list(left.symbols) == list(right.symbols)
            np.testing.assert_allclose(left.positions, right.positions, atol=1e-4)
            np.testing.assert_allclose(left.cell.array, right.cell.array, atol=1e-4)
            assert left.info['REF_energy'] == pytest.approx(right.info['REF_energy'], abs=1e-3)
            np.testing.assert_allclose(left.arrays['REF_forces'], right.arrays['REF_forces'], atol=1e-3)
            np.testing.assert_allclose(left.info['REF_stress'], right.info['REF_stress'], atol=1e-5)


@pytest.fixture(scope='module')
def done():
    """Return the campaign that an ASE calculator labelled, once it has run."""
    return {}


@pytest.fixture
def by_calculator(launch, done):
    if 'campaign' not in done:
        done['campaign'] = wait(launch('oodal.label.ase', {'calculator': EMT_CALCULATOR}))
    return done['campaign']


def test_a_users_program_gives_the_same(launch, by_calculator):
    overrides = {
        'command': sys.executable,
        'settings': {'input_format': 'extxyz', 'input_file': 'it.xyz', 'arguments': '{program} {input}'},
        'files': {'program': orm.SinglefileData(PROGRAM).store()},
    }
    check_same(by_calculator, wait(launch('oodal.label.shell', overrides)))


def test_labels_from_outside_are_the_same(launch, by_calculator, tmp_path):
    campaign = launch('oodal.label.outside', {'level': 'EMT, a loop in plain ASE'})
    brought = []

    def label():
        """Do what somebody does who knows nothing of AiiDA."""
        asked = [
            entry
            for entry in find_entries(QueueStatus.SUBMITTED, campaign=campaign.uuid)
            if entry.labeller == 'oodal.label.outside'
        ]
        if not asked or not find_waiting():
            return
        (path,) = export_entries(asked, tmp_path / f'to_label_{len(brought)}.extxyz', 'extxyz')
        frames = ase.io.read(path, ':')
        for atoms in frames:
            atoms.calc = EMT(asap_cutoff=False)
            atoms.get_forces()
            atoms.get_stress()
        path = tmp_path / f'labelled_{len(brought)}.extxyz'
        ase.io.write(path, frames)
        outcome = import_file(path)
        assert (len(outcome.accepted), outcome.refused) == (len(asked), [])
        brought.append(len(asked))
        wake_waiting()

    check_same(by_calculator, wait(campaign, label))
    assert brought[0] == 4
    assert len(brought) == 2


def test_xtb_labels_a_system_of_two_elements(by_calculator, engine_code, localhost):
    """The crystals that the campaign began with, and the clusters that it carved."""
    require('tblite')
    # metals converge with hot electrons only
    parameters = {'method': 'GFN1-xTB', 'electronic_temperature': 3000.0, 'verbosity': 0}
    calculator = {'calculator': 'tblite.ase:TBLite', 'parameters': parameters}
    builder = AseLabelWorkChain.get_builder_from_protocol(
        code=engine_code, computer=localhost, overrides={'calculator': calculator}
    )
    asked = [entry.load_node() for entry in find_entries(QueueStatus.LABELLED, campaign=by_calculator.uuid)]
    builder.clusters = {f'c{number}': node for number, node in enumerate(asked)}
    outputs, process = run_get_node(builder)
    assert process.is_finished_ok, process.exit_message
    frames = list(outputs['labels'])
    found = {name: len(frames) for name, frames in labels_of(by_calculator).items()}
    assert len(found) == 2
    assert len(frames) == sum(found.values())
    assert sum('force_mask' in atoms.arrays for atoms in frames) == found['round_1']
    assert {symbol for atoms in frames for symbol in atoms.symbols} == {'Al', 'Cu'}
    from tblite.ase import TBLite

    atoms = frames[-1].copy()
    atoms.calc = TBLite(**parameters)
    assert frames[-1].info['REF_energy'] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(frames[-1].arrays['REF_forces'], atoms.get_forces(), atol=1e-5)
    entries = find_entries(QueueStatus.LABELLED, campaign=process.uuid)
    assert len(entries) == len(frames)
    assert all(entry.core_hours > 0 for entry in entries)
