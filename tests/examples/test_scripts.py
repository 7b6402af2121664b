"""The scripts of ``examples/`` run as they stand, but for sizes."""

import time
from pathlib import Path

import ase.io
import pytest
from aiida import orm
from ase.calculators.emt import EMT
from machine import find_program, require
from scripts import EXAMPLES, run_example

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.queue.exchange import export_entries, import_file
from aiida_oodal.queue.outside import find_waiting, wake_waiting
from aiida_oodal.report import read_history
from aiida_oodal.report.campaign.left import read_left

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

EMT_LABELS = {'calculator': {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}}
#: A fit of a second.
SMALL_FIT = {'cutoff': 4.0, 'number_of_functions': 20, 'max_functions': 20}
#: Nothing halts, nothing is audited: one round of MD, and it is healed.
ONE_ROUND = {
    'train': SMALL_FIT,
    'thresholds': {'gamma_break': 1e8, 'gamma_ceiling': 1e9},
    'audit': {'frames': 0},
    'max_rounds': 1,
}


@pytest.fixture(autouse=True)
def daemon(localhost, daemon_client):
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)
    return daemon_client


def wait(process, meanwhile=lambda: None, *, fails=False):
    end = time.monotonic() + 600
    while not process.is_terminated:
        assert time.monotonic() < end, process.process_state
        meanwhile()
        time.sleep(0.5)
    assert process.is_finished, process.exception
    assert process.is_finished_ok is not fails, process.exit_message
    return process


def test_one_walker(campaign):
    settings = {'temperature': [300, 900], 'steps': 100, 'gamma_every': 10}
    walk = wait(run_example('launch_md.py', SETTINGS=settings)['walk'])
    assert walk.outputs.results['outcome'] in ('COMPLETED', 'UNCERTAIN')
    assert walk.inputs.thresholds['gamma_break'] == 5.0
    assert run_example('launch_md.py', SETTINGS=settings)['walk'].pk == walk.pk


def test_a_campaign_on_an_element():
    script = run_example(
        'launch_campaign.py',
        CRYSTALS={'symbol': 'Al', 'crystal': 'fcc', 'lattice_constant': 4.0, 'count': 8, 'repeat': [1, 1, 1]},
        WALKERS={'warm': {'temperature': [300, 400], 'velocity_seed': 11, 'steps': 20}},
        REPEATS=3,
        VALIDATION={'temperatures': [300], 'samples_per_temperature': 2, 'steps': 20},
        SETTINGS={**ONE_ROUND, 'label': EMT_LABELS},
    )
    history = read_history(wait(script['campaign']))
    assert [walker.last_step for walker in history.rounds[0].walkers] == [20]
    assert history.rounds[0].force_rmse > 0


def test_a_campaign_on_an_alloy():
    script = run_example(
        'launch_alloy.py',
        N_CRYSTALS=6,
        WALKERS={'Cu3Au': [0.25, 400]},
        STEPS=20,
        SETTINGS={**ONE_ROUND, 'label': EMT_LABELS},
    )
    campaign = wait(script['campaign'])
    assert campaign.inputs.walkers['Cu3Au']['structure'].get_atoms(0).get_chemical_formula() == 'Au27Cu81'
    assert campaign.outputs.learned.potential.elements == ['Au', 'Cu']


def test_labels_from_outside(tmp_path, monkeypatch):
    """Somebody who knows nothing of AiiDA labels what the campaign asks for."""
    monkeypatch.chdir(tmp_path)
    values = {
        'CRYSTAL': {'name': 'Al', 'crystalstructure': 'fcc', 'a': 4.02, 'cubic': True},
        'N_CRYSTALS': 8,
        'WALKERS': {'hot': {'temperature': [300, 400], 'velocity_seed': 1, 'steps': 20}},
        'SETTINGS': {**ONE_ROUND, 'label': {'level': 'EMT, by hand'}},
    }
    campaign = run_example('launch_outside.py', **values)['campaign']

    def label():
        asked = find_entries(QueueStatus.SUBMITTED, campaign=campaign.uuid)
        if asked and find_waiting():
            (path,) = export_entries(asked, Path('to_label.extxyz'), 'extxyz')
            frames = ase.io.read(path, ':')
            for atoms in frames:
                atoms.calc = EMT(asap_cutoff=False)
                atoms.get_forces()
                atoms.get_stress()
            ase.io.write('labelled.extxyz', frames)
            assert len(import_file(Path('labelled.extxyz')).accepted) == len(asked)
            wake_waiting()

    wait(campaign, label)
    assert campaign.outputs.labels.start.n_structures == 8
    # the same script with labels that are there is another campaign
    with pytest.raises(
        OodalError, match=rf'CampaignWorkChain<{campaign.pk}> .* was given other inputs: initial.labels.labels is new'
    ):
        run_example('launch_outside.py', **values, LABELLED='labelled.extxyz')


def test_a_screening(monkeypatch):
    require('mace')
    monkeypatch.chdir(EXAMPLES.parent)
    script = run_example('launch_screening.py', MODELS=('w1', 'w2'), STRAINS=(0.0, 0.3))
    screening = wait(script['screening'])
    # the crystals as they were are known, those that are a third longer are not
    volumes = [atoms.get_volume() for atoms in script['make_target']()]
    found = sorted(atoms.get_volume() for atoms in screening.outputs.candidates.strained)
    assert found == pytest.approx(sorted(volumes[1::2]))


def test_labels_by_quantum_espresso(localhost):
    require('pw', 'aiida_quantumespresso')
    orm.InstalledCode(
        label='pw.x',
        computer=localhost,
        filepath_executable=find_program('pw.x'),
        default_calc_job_plugin='quantumespresso.pw',
    ).store()
    script = run_example(
        'launch_qe.py',
        COMPUTER=localhost.label,
        ALLOYS={'Al-Mg': (['Al', 'Mg'], 0.25)},
        N_CRYSTALS=3,
        REPEATS=1,
        STEPS=10,
        MAX_ROUNDS=1,
    )
    campaign = script['campaigns']['Al-Mg']
    # the potential of three crystals is so ignorant that no frame of its MD is worth a label
    wait(campaign, fails=True)
    assert 'no cluster could be chosen' in campaign.exit_message
    (entry,) = read_history(campaign).rounds
    assert entry.potential.elements == ['Al', 'Mg']
    assert read_left(campaign).labels['start'].n_structures == 3
    entries = find_entries(QueueStatus.LABELLED, campaign=campaign.uuid)
    assert {entry.theory for entry in entries} == {'pw.x 12.0 Ry, Al.pz-vbc.UPF, Mg.pz-n-vbc.UPF'}
