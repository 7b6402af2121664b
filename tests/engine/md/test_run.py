"""What a run left, read once: which frames are handed on, and what is said where the frames stayed behind."""

import re
import shutil
from pathlib import Path

import numpy as np

from aiida_oodal.engine.md import dump
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.verdict import Outcome
from aiida_oodal.engine.thresholds import Thresholds

DATA = Path(__file__).parents[2] / 'data' / 'lammps'
LIMITS = Thresholds(gamma_select=2.0, gamma_break=5.0, gamma_ceiling=1000.0)


def halted(folder):
    """Put a run that ``fix halt`` ended into a folder."""
    for source, name in (('log.lammps', 'log.lammps'), ('extrapolative.lammpstrj.gz', 'snapshots.dump')):
        shutil.copy(DATA / 'halt_soft' / source, folder / name)
    shutil.copy(DATA / 'halt_soft' / 'final.dump', folder / 'final.dump')
    return folder


def frame_text(step, *gammas):
    rows = ''.join(f'{i} 1 {i}.5 0 0 {gamma}\n' for i, gamma in enumerate(gammas, start=1))
    return (
        f'ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(gammas)}\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n'
        f'ITEM: ATOMS id type x y z gamma\n{rows}'
    )


def test_whole_frames_over_gamma_select_up_to_the_one_to_learn_from_are_handed_on(tmp_path):
    log = (DATA / 'wheel' / 'halt_other.log').read_text().split('Per MPI rank')[0]
    log += 'Per MPI rank memory allocation (min/avg/max) = 3 | 3 | 3 Mbytes\n   Step Temp v_max_gamma\n'
    log += '0 300 0.5\n50 300 6.0\n'
    (tmp_path / 'log.lammps').write_text(re.sub('Created [0-9]+ atoms', 'Created 2 atoms', log))
    frames = [
        frame_text(0, 0.5, 1.9),  # nothing new
        frame_text(10, 0.5, 2.1),
        frame_text(20, 2.5),  # an atom is missing
        frame_text(30, 3.0, 3.0),
        frame_text(50, 6.0, 1.0),  # the halt
        frame_text(60, 7.0, 1.0),  # what came of it
    ]
    (tmp_path / 'snapshots.dump').write_text(''.join(frames))
    (tmp_path / 'final.dump').write_text(frame_text(50, 6.0, 1.0))
    run = read_run(tmp_path, target_step=4200, thresholds=LIMITS)
    assert run.verdict.outcome is Outcome.UNCERTAIN
    assert [frame.step for frame in run.snapshots] == [10, 30, 50]
    assert run.verdict.candidate_step == 50
    (tmp_path / 'snapshots.dump').write_text(''.join(frames[:4]) + 'rubbish\n' + frames[4])
    run = read_run(tmp_path, target_step=4200, thresholds=LIMITS)
    assert [frame.step for frame in run.snapshots] == [10, 30, 50]
    assert 'snapshots.dump, line' in run.verdict.message


def test_each_file_is_opened_once(tmp_path, monkeypatch):
    halted(tmp_path)
    opened = []
    reader = dump.open_stream

    def count(path, *rest):
        opened.append((Path(path).name, *rest))
        return reader(path, *rest)

    monkeypatch.setattr(dump, 'open_stream', count)
    read_run(tmp_path, target_step=4200, thresholds=LIMITS)
    assert [name for name, *_ in opened].count('snapshots.dump') == 1
    # of the final dump the last title is looked for, and then the frame is read
    assert [name for name, *_ in opened].count('final.dump') <= 2


def test_without_its_frames_the_log_says_how_a_run_ended(tmp_path):
    whole = read_run(halted(tmp_path), target_step=4200, thresholds=LIMITS)
    for name in ('snapshots.dump', 'final.dump'):
        (tmp_path / name).unlink()
    run = read_run(tmp_path, target_step=4200, thresholds=LIMITS, has_frames=False)
    assert (run.verdict.outcome, run.verdict.last_step) == (Outcome.UNCERTAIN, 2860)
    assert run.verdict.trigger_step == whole.verdict.trigger_step
    assert np.array_equal(run.series['Step'], whole.series['Step'])
    assert (run.snapshots, run.final, run.verdict.has_frames) == ((), None, False)
    assert 'Its frames are in its remote folder' in run.verdict.message
    assert 'No valid frame' not in run.verdict.message
