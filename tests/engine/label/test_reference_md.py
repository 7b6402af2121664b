from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label import reference_md
from aiida_oodal.engine.label.reference_md import sample_md, validate_reference_md_settings
from aiida_oodal.engine.structures import StructureSet

SETTINGS = {
    'temperatures': [300.0, 1000.0],
    'samples_per_temperature': 3,
    'steps': 10,
    'timestep_fs': 2.0,
    'friction': 0.02,
    'seed': 4,
    'expansion': 1e-5,
}


@pytest.fixture
def crystal():
    return bulk('Al', 'fcc', a=4.0, cubic=True)


def test_snapshots_are_labelled_and_spread_over_temperatures_and_steps(crystal):
    snapshots = sample_md(crystal, EMT(), **SETTINGS)
    assert [(atoms.info['temperature'], atoms.info['step']) for atoms in snapshots] == [
        (temperature, step) for temperature in (300.0, 1000.0) for step in (3, 6, 10)
    ]
    for atoms in snapshots:
        expected = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        expected.calc = EMT()
        assert atoms.info['REF_energy'] == pytest.approx(expected.get_potential_energy(), abs=1e-12)
        assert np.allclose(atoms.arrays['REF_forces'], expected.get_forces(), atol=1e-12)
        assert atoms.cell[0, 0] == pytest.approx(4.0 * (1 + 1e-5 * atoms.info['temperature']))
    assert np.array_equal(crystal.positions, bulk('Al', 'fcc', a=4.0, cubic=True).positions)


def test_a_seed_gives_the_same_snapshots_whatever_other_temperatures_run(crystal):
    both = sample_md(crystal, EMT(), **SETTINGS)
    again = sample_md(crystal, EMT(), **SETTINGS)
    alone = sample_md(crystal, EMT(), **(SETTINGS | {'temperatures': [300.0]}))
    other = sample_md(crystal, EMT(), **(SETTINGS | {'seed': 5, 'temperatures': [300.0]}))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(both, again, strict=True))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(both[:3], alone, strict=True))
    assert not np.array_equal(alone[0].positions, other[0].positions)


def test_snapshots_do_not_depend_on_how_many_temperatures_run_at_a_time(crystal, tmp_path):
    StructureSet.from_atoms([crystal]).save(tmp_path / 'structure.npz')
    settings = SETTINGS | {'temperatures': [300, 700, 1000]}
    job = {'structure': 'structure.npz', 'calculator': {'calculator': 'emt'}, 'settings': settings}
    sets = []
    for workers in (1, 2):
        reference_md.run_job(job | {'workers': workers}, tmp_path)
        sets.append(StructureSet.load(tmp_path / 'labels.npz'))
    assert np.array_equal(sets[0].positions, sets[1].positions)
    assert (
        sets[0].info['temperature'].tolist()
        == sets[1].info['temperature'].tolist()
        == [300] * 3 + [700] * 3 + [1000] * 3
    )


def test_a_process_that_dies_is_told_with_a_way_out(crystal, tmp_path, monkeypatch):
    StructureSet.from_atoms([crystal]).save(tmp_path / 'structure.npz')
    monkeypatch.setattr(reference_md, 'label_structure', lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    job = {'structure': 'structure.npz', 'calculator': {'calculator': 'emt'}, 'settings': SETTINGS, 'workers': 2}
    with pytest.raises(OodalError, match='one of 2 processes died, mostly for lack of memory'):
        reference_md.run_job(job, tmp_path)


def test_momenta_have_the_asked_temperature_and_no_drift():
    masses = np.repeat([27.0, 63.5], 2000)
    momenta = reference_md._thermal_momenta(masses, 500.0, np.random.default_rng(0))
    assert np.allclose(momenta.sum(axis=0), 0.0, atol=1e-9)
    for mass in (27.0, 63.5):
        kinetic = np.mean(np.sum(momenta[masses == mass] ** 2, axis=1) / (2 * mass))
        assert kinetic == pytest.approx(1.5 * units.kB * 500.0, rel=0.05)


def test_md_that_explodes_says_so():
    gas = bulk('Ar', 'fcc', a=3.0, cubic=True)  # far too dense for this sigma
    with pytest.raises(OodalError, match='it explodes; use a timestep below 2 fs'):
        sample_md(gas, LennardJones(sigma=3.4, epsilon=1.0, rc=8.0), **SETTINGS)


def test_a_reference_that_does_not_know_the_element_is_named():
    with pytest.raises(OodalError, match='EMT cannot label'):
        sample_md(bulk('Na', 'bcc', a=4.2), EMT(), **SETTINGS)


def test_the_job_fills_in_defaults_and_writes_labels(tmp_path, crystal):
    StructureSet.from_atoms([crystal]).save(tmp_path / 'structure.npz')
    job = {
        'structure': 'structure.npz',
        'calculator': {'calculator': 'emt'},
        'settings': {'temperatures': [500], 'samples_per_temperature': 2, 'steps': 4},
    }
    reference_md.run_job(job, tmp_path)
    assert len(StructureSet.load(tmp_path / 'labels.npz')) == 2
    results = json.loads((tmp_path / 'results.json').read_text())
    assert (results['n_labelled'], results['complete']) == (2, True)
    assert results['settings'] == reference_md.DEFAULTS | job['settings']


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'temperature': 300}, 'temperature: not a setting'),
        ({'temperatures': []}, 'temperatures = []'),
        ({'temperatures': '300'}, "temperatures = '300'"),
        ({'temperatures': [-5]}, 'temperatures = -5 must be between 1'),
        ({'steps': 2, 'samples_per_temperature': 3}, 'steps = 2 must be between 3'),
        ({'steps': 10.5}, 'steps = 10.5 must be a whole number'),
        ({'seed': True}, 'seed = True must be a whole number'),
        ({'timestep_fs': '1'}, "timestep_fs = '1' must be a number"),
        ({'friction': float('nan')}, 'friction = nan must be between'),
    ],
)
def test_wrong_settings_are_named(settings, message, tmp_path):
    assert message in (validate_reference_md_settings(settings) or '')
    with pytest.raises(OodalError, match='settings of the reference-md job'):
        reference_md.run_job({'structure': 'x', 'calculator': {}, 'settings': settings}, tmp_path)


def test_the_defaults_are_valid():
    assert validate_reference_md_settings({}) is None
