"""Tests of the verdict on captured runs, whole, cut and changed."""

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.dump import iterate_frames
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.verdict import Outcome, Verdict
from aiida_oodal.engine.thresholds import Thresholds

DATA = Path(__file__).parents[2] / 'data' / 'lammps'
WHEEL = DATA / 'wheel'
#: Step of the last run command of the halt_* captures.
TARGET = 4200


def judge_folder(folder: Path, target_step: int = TARGET, **changes: Any) -> Verdict:
    names = ('gamma_select', 'gamma_break', 'gamma_ceiling')
    given = {name: changes.pop(name) for name in names if name in changes}
    thresholds = Thresholds(**({'gamma_select': 2.0, 'gamma_break': 5.0, 'gamma_ceiling': 1000.0} | given))
    return read_run(folder, target_step=target_step, thresholds=thresholds, **changes).verdict


def fill(folder: Path, log: Path | str, snapshots: Path | str | None = None, final: Path | str | None = None) -> Path:
    for name, source in {'log.lammps': log, 'snapshots.dump': snapshots, 'final.dump': final}.items():
        if isinstance(source, str):
            (folder / name).write_text(source)
        elif source is not None:
            shutil.copy(source, folder / name)
    return folder


def log_text(*rows: str, columns: str = 'Step Temp PotEng v_max_gamma', end: str = '', n_atoms: int = 2) -> str:
    """Return the log of a run with a halt fix; ``end`` is what comes after the rows."""
    lines = [
        f'LAMMPS (22 Jul 2025)\nCreated {n_atoms} atoms',
        'fix watch all halt 10 v_max_gamma > 5 error soft',
        'Per MPI rank memory allocation (min/avg/max) = 3 | 3 | 3 Mbytes',
        f'   {columns} ',
        *rows,
    ]
    return '\n'.join(lines) + '\n' + end


def loop(steps: int, n_atoms: int = 2) -> str:
    return f'Loop time of 1 on 1 procs for {steps} steps with {n_atoms} atoms\n'


def frame_text(step: int, gammas: list[float | str], n_atoms: int | None = None) -> str:
    rows = ''.join(f'{i} 1 {i}.5 0 0 {gamma}\n' for i, gamma in enumerate(gammas, start=1))
    return (
        f'ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(gammas)}\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n'
        f'ITEM: ATOMS id type x y z gamma\n{rows}'
    )


def halt(name: str, folder: Path) -> Path:
    final = DATA / name / 'final.dump'
    return fill(
        folder,
        DATA / name / 'log.lammps',
        DATA / name / 'extrapolative.lammpstrj.gz',
        final if final.exists() else None,
    )


@pytest.mark.parametrize(('name', 'last_step'), [('halt_soft', 2860), ('halt_continue', 2880)])
def test_halt(tmp_path: Path, name: str, last_step: int) -> None:
    verdict = judge_folder(halt(name, tmp_path))
    assert verdict.outcome is Outcome.UNCERTAIN
    assert verdict.last_step == last_step
    assert verdict.trigger_step == 2860
    assert verdict.select_step == 1800  # from the snapshots: the thermo output shows 2.07 at 1800, too
    assert verdict.max_gamma == pytest.approx(5.367534586)
    assert (verdict.candidate_step, verdict.candidate_file) == (2860, 'final.dump')
    assert (verdict.last_valid_step, verdict.last_valid_file) == (2860, 'final.dump')
    assert verdict.worst_atoms[0] == (31, 5.367534586)
    assert [gamma for _, gamma in verdict.worst_atoms] == sorted((g for _, g in verdict.worst_atoms), reverse=True)
    assert all(gamma > 2 for _, gamma in verdict.worst_atoms)
    assert verdict.message == (
        'Gamma passed gamma_break (5) at step 2860; fix fh halted the run at step 2860 with 5.368. The last valid '
        'frame is that of step 2860 in final.dump. Learn from that of step 2860 in final.dump: cut clusters around its '
        'atoms 31 (gamma 5.368), 98 (gamma 4.043), 41 (gamma 3.355).'
    )
    json.dumps(verdict.__dict__, allow_nan=False)  # goes into a database


def test_hard_halt_leaves_no_frame_of_the_halt(tmp_path: Path) -> None:
    verdict = judge_folder(halt('halt_hard', tmp_path))
    assert verdict.outcome is Outcome.UNCERTAIN
    assert (verdict.trigger_step, verdict.last_step, verdict.candidate_step) == (2860, 2860, None)
    assert verdict.max_gamma == pytest.approx(5.367534586)
    assert 'No valid frame is on disk' in verdict.message  # these snapshots hold the atoms over 2 only


def test_lost_atoms(tmp_path: Path) -> None:
    verdict = judge_folder(fill(tmp_path, DATA / 'lost_error/log.lammps', DATA / 'lost_error/lost.dump'))
    assert verdict.outcome is Outcome.LOST_ATOMS
    assert (verdict.candidate_step, verdict.candidate_file, verdict.last_valid_step) == (0, 'snapshots.dump', 0)
    assert verdict.worst_atoms[0] == (0, 14.208)
    assert len(verdict.worst_atoms) == 10
    assert '550 became 548' in verdict.message


def test_lost_atoms_learn_from_the_first_frame_over_select(tmp_path: Path) -> None:
    log = log_text(
        '0 300 -1 0.5', '20 300 -1 1650', end='ERROR: Lost atoms: original 2 current 1 (src/thermo.cpp:488)\n'
    )
    frames = [
        frame_text(*frame) for frame in ((0, [0.5, 1]), (10, [0.5, 2.2]), (15, [0.6, 900]), (20, [1650, 1]), (30, [1]))
    ]
    verdict = judge_folder(fill(tmp_path, log, ''.join(frames)))
    assert verdict.outcome is Outcome.LOST_ATOMS
    assert (verdict.candidate_step, verdict.worst_atoms) == (10, ((1, 2.2),))
    assert (verdict.last_valid_step, verdict.last_valid_file) == (15, 'snapshots.dump')
    assert (verdict.select_step, verdict.trigger_step, verdict.max_gamma) == (10, 15, 1650)


@pytest.mark.parametrize('name', ['lost_warn', 'lost_ignore'])
def test_lost_atoms_that_lammps_does_not_mind(tmp_path: Path, name: str) -> None:
    verdict = judge_folder(fill(tmp_path, WHEEL / f'{name}.log'), target_step=50)
    assert verdict.outcome is Outcome.LOST_ATOMS
    assert 'Atoms were lost: 40 became' in verdict.message


def test_explosion_in_a_real_run(tmp_path: Path) -> None:
    verdict = judge_folder(fill(tmp_path, WHEEL / 'nan.log', WHEEL / 'nan.dump'), target_step=3)
    assert verdict.outcome is Outcome.EXPLODED
    assert 'Temp is not a finite number at step 1' in verdict.message
    assert (verdict.last_valid_step, verdict.candidate_step) == (0, None)


@pytest.mark.parametrize(
    ('log', 'snapshots', 'what'),
    [
        (log_text('0 300 -1 1', '10 300 -1 -nan'), '', 'v_max_gamma is not a finite number at step 10'),
        (log_text('0 300 -1 1', end='ERROR: step 9: positions are nan\n'), '', 'positions are nan'),
        (log_text('0 300 -1 1', '10 300 -1 1234'), '', r'gamma passed gamma_ceiling \(1000\) at step 10'),
        (
            log_text('0 300 -1 1'),
            frame_text(5, [1, 1500]) + frame_text(7, [1, 9000]) + frame_text(8, [1, 8000]),
            r'gamma passed gamma_ceiling \(1000\) at step 5',
        ),
        (
            log_text('0 300 -1 1'),
            frame_text(5, [1, 'nan']),
            'frame of step 5 in snapshots.dump has numbers that are not',
        ),
        (
            log_text('0 300 -1 1', end='ERROR: Non-numeric pressure - simulation unstable (src/fix_nh.cpp:9)\n'),
            '',
            'LAMMPS says "Non-numeric pressure',
        ),
        (
            log_text('0 300 -1 1', end='Fix halt condition for fix-id watch met on step 7 with value 5000\n'),
            '',
            'at step 7',
        ),
    ],
)
def test_explosion(tmp_path: Path, log: str, snapshots: str, what: str) -> None:
    good = frame_text(1, [0.5, 3.5]) + frame_text(2, [0.5, 4.5])
    verdict = judge_folder(fill(tmp_path, log, good + snapshots))
    assert verdict.outcome is Outcome.EXPLODED
    assert (verdict.candidate_step, verdict.last_valid_step) == (1, 2)
    assert re.search(what, verdict.message)


def test_a_start_that_is_not_physical_is_no_reason_to_go_back(tmp_path: Path) -> None:
    log = log_text('0 300 -1 2413', end=loop(0) + 'Total wall time: 0:00:01\n')
    verdict = judge_folder(fill(tmp_path, log, frame_text(0, [3, 2413]), frame_text(0, [3, 2413])))
    assert verdict.outcome is Outcome.EXPLODED
    assert (verdict.last_valid_step, verdict.candidate_step) == (None, None)
    assert 'gamma passed gamma_ceiling (1000) at step 0' in verdict.message
    assert 'the structure that the run began with, so there is nothing to go on from' in verdict.message
    assert 'restart file' not in verdict.message
    assert 'Learn from' not in verdict.message


def test_what_came_from_an_unphysical_frame_is_not_recommended(tmp_path: Path) -> None:
    # gamma falls again, but these atoms have been where nothing is known
    frames = [frame_text(*frame) for frame in ((0, [0.5, 1]), (10, [0.5, 2.2]), (20, [1200, 3]), (30, [4, 3]))]
    log = log_text('0 300 -1 0.5', '20 300 -1 1200', '30 300 -1 4', end=loop(30))
    verdict = judge_folder(fill(tmp_path, log, ''.join(frames), frame_text(30, [4, 3])))
    assert verdict.outcome is Outcome.EXPLODED
    assert (verdict.last_valid_step, verdict.last_valid_file, verdict.candidate_step) == (10, 'snapshots.dump', 10)
    assert 'step 30' not in verdict.message.replace('of step 30 in', '')
    # the same where only the thermo output saw it
    verdict = judge_folder(fill(tmp_path, log, frames[1] + frames[3], frame_text(30, [4, 3])))
    assert (verdict.last_valid_step, verdict.candidate_step) == (10, 10)


def test_of_a_run_without_valid_frames_only_a_restart_file_from_before_is_recommended(tmp_path: Path) -> None:
    rows = [f'{step} 300 -1 {1 if step < 250 else 1500}' for step in range(0, 351, 50)]
    fill(tmp_path, log_text(*rows), frame_text(300, [3, 1500]))
    verdict = judge_folder(tmp_path, restart_every=100)
    assert 'No valid frame is on disk: begin again, with restart files more often' in verdict.message
    verdict = judge_folder(tmp_path, restart_every=200)
    assert 'No valid frame is on disk: go back to periodic.restart.1 (step 200)' in verdict.message


def test_wall_time(tmp_path: Path) -> None:
    verdict = judge_folder(fill(tmp_path, WHEEL / 'timeout.log'), target_step=10**8)
    assert verdict.outcome is Outcome.WALLTIME
    assert f'at step {verdict.last_step} of 100000000.' in verdict.message
    assert (verdict.restart_file, verdict.restart_step) == ('final.restart', verdict.last_step)
    assert verdict.message.endswith(f'Go on from final.restart (step {verdict.last_step}).')
    assert 'no column of gamma (v_max_gamma)' in verdict.message


def test_halt_on_elapsed_time_is_a_wall_time(tmp_path: Path) -> None:
    log = log_text(
        '0 300 -1 1',
        end='fix t all halt 10 tlimit > 60\nFix halt condition for fix-id t met on step 10 with value 61\n',
    )
    assert judge_folder(fill(tmp_path, log + loop(10) + 'Total wall time: 0:01:00\n')).outcome is Outcome.WALLTIME


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('halt_other', 'Fix stop halted the run at step 40 of 100, but not for gamma: v_s was 40.'),
        ('halt_silent', 'LAMMPS ended in order at step 40 of 100, without a halt line'),
        ('bad_input', 'LAMMPS stopped before its first step with an error: "Incorrect args for pair coefficients'),
    ],
)
def test_failures(tmp_path: Path, name: str, message: str) -> None:
    verdict = judge_folder(fill(tmp_path, WHEEL / f'{name}.log'), target_step=100)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.message.startswith(message)


def test_killed(tmp_path: Path) -> None:
    folder = fill(tmp_path, DATA / 'sigkill/log.no', DATA / 'sigkill/truncated.dump')
    verdict = judge_folder(folder, target_step=5000)
    assert verdict.outcome is Outcome.KILLED
    # the log was not flushed as far as the dump
    assert (verdict.last_step, verdict.last_valid_step, verdict.last_valid_file) == (386, 386, 'snapshots.dump')
    assert verdict.message.startswith(
        'The run stopped at step 386 of 5000 (the log is cut in line 385) without an error: it was killed, by a'
    )


def test_gamma_over_the_threshold_outlives_a_kill(tmp_path: Path) -> None:
    log = log_text('0 300 -1 0.5', '10 300 -1 5.5', '20 300 -1 0.5')
    verdict = judge_folder(fill(tmp_path, log, frame_text(10, [1, 5.5])))
    assert verdict.outcome is Outcome.UNCERTAIN
    assert (verdict.trigger_step, verdict.candidate_step, verdict.worst_atoms) == (10, 10, ((1, 5.5),))
    assert 'without a halt line' in verdict.message


def test_threshold_passed_where_no_fix_watched(tmp_path: Path) -> None:
    log = log_text('0 300 -1', end=loop(100) + 'Total wall time: 0:00:01\n', columns='Step Temp PotEng')
    log = log.replace('fix watch', '# fix watch')
    snapshots = frame_text(10, [1, 3]) + frame_text(20, [6, 1]) + frame_text(30, [7, 1]) + frame_text(40, [1, 3])
    verdict = judge_folder(fill(tmp_path, log, snapshots), target_step=100)
    assert verdict.outcome is Outcome.UNCERTAIN
    assert (verdict.select_step, verdict.trigger_step, verdict.candidate_step) == (10, 20, 20)


def test_completed(tmp_path: Path) -> None:
    log = log_text('0 300 -1 0.5', '100 300 -1 2.5', end=loop(100))
    folder = fill(tmp_path, log + 'Total wall time: 0:00:01\n', frame_text(90, [1, 3]), frame_text(100, [1, 2.5]))
    verdict = judge_folder(folder, target_step=100)
    assert verdict.outcome is Outcome.COMPLETED
    assert (verdict.last_step, verdict.max_gamma, verdict.select_step, verdict.trigger_step) == (100, 3, 90, None)
    assert (verdict.candidate_step, verdict.worst_atoms) == (None, ())
    assert verdict.message == (
        'The run did all 100 steps. The largest gamma was 3 (gamma_break is 5). It first passed gamma_select at step '
        '90: snapshots.dump may hold frames worth a label.'
    )
    (folder / 'log.lammps').write_text(log)  # died after the final dump: nothing is missing
    assert judge_folder(folder, target_step=100).outcome is Outcome.COMPLETED
    (folder / 'final.dump').write_text(frame_text(100, [1, 2.5])[:-1])  # died while it wrote the final dump
    assert judge_folder(folder, target_step=100).outcome is Outcome.KILLED
    (folder / 'log.lammps').write_text(log_text('0 300 -1 0.5', end=loop(90)))
    assert judge_folder(folder, target_step=100).outcome is Outcome.KILLED


def test_the_largest_gamma_is_that_of_all_frames(tmp_path: Path) -> None:
    log = log_text('0 300 -1 0.5', '100 300 -1 0.5', end=loop(100) + 'Total wall time: 0:00:01\n')
    snapshots = frame_text(30, [1, 3]) + frame_text(60, [4.5, 1]) + frame_text(90, [1, 2.5])
    verdict = judge_folder(fill(tmp_path, log, snapshots), target_step=100)
    assert (verdict.outcome, verdict.max_gamma, verdict.select_step) == (Outcome.COMPLETED, 4.5, 30)


def test_completed_without_gamma_says_so(tmp_path: Path) -> None:
    log = log_text('0 300 -1', end=loop(100) + 'Total wall time: 0:00:01\n', columns='Step Temp PotEng')
    verdict = judge_folder(fill(tmp_path, log), target_step=100)
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.max_gamma is None
    assert 'The thermo output has no column of gamma (v_max_gamma)' in verdict.message


def test_gamma_that_is_always_zero_is_refused(tmp_path: Path) -> None:
    log = log_text('0 300 -1 0', '100 300 -1 0', end=loop(100) + 'Total wall time: 0:00:01\n')
    verdict = judge_folder(fill(tmp_path, log, final=frame_text(100, [0, 0])), target_step=100)
    assert verdict.outcome is Outcome.FAILED
    assert 'before November 2023' in verdict.message
    (tmp_path / 'final.dump').write_text(frame_text(100, [0, 0.1]))
    assert judge_folder(tmp_path, target_step=100).outcome is Outcome.COMPLETED


def test_error_of_the_embedded_driver(tmp_path: Path) -> None:
    folder = fill(tmp_path, log_text('0 300 -1 0.5'))
    (folder / 'error.json').write_text(json.dumps({'message': 'active_set.asi: no such element: Ni'}))
    verdict = judge_folder(folder)
    assert verdict.outcome is Outcome.FAILED
    assert 'active_set.asi: no such element: Ni' in verdict.message
    (folder / 'error.json').write_text('{"mess')
    assert judge_folder(folder).outcome is Outcome.FAILED
    (folder / 'error.json').unlink()
    assert judge_folder(folder).outcome is Outcome.KILLED


def test_damaged_dump_is_part_of_the_message(tmp_path: Path) -> None:
    log = log_text('0 300 -1 0.5', end=loop(100) + 'Total wall time: 0:00:01\n')
    verdict = judge_folder(fill(tmp_path, log, 'rubbish\n'), target_step=100)
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.message.count('snapshots.dump, line 1: ') == 1


def test_unreadable_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OodalError, match=r'log\.lammps, line 35: .*multi or yaml'):
        judge_folder(fill(tmp_path, WHEEL / 'thermo_yaml.log'))


#: Captured runs: folder, log, dumps, target step, and the line of the log that proves how the run ended.
CAPTURES = [
    ('halt_soft', 'log.lammps', 'extrapolative.lammpstrj.gz', 'final.dump', TARGET, (Outcome.UNCERTAIN, 'Fix halt')),
    ('halt_hard', 'log.lammps', 'extrapolative.lammpstrj.gz', None, TARGET, (Outcome.UNCERTAIN, 'ERROR: Fix halt')),
    (
        'halt_continue',
        'log.lammps',
        'extrapolative.lammpstrj.gz',
        'final.dump',
        TARGET,
        (Outcome.UNCERTAIN, 'Fix halt'),
    ),
    ('lost_error', 'log.lammps', 'lost.dump', None, 2000, (Outcome.LOST_ATOMS, 'ERROR: Lost atoms')),
    ('sigkill', 'log.yes', 'truncated.dump', None, 5000, None),
    ('wheel', 'nan.log', 'nan.dump', None, 3, (Outcome.EXPLODED, '         0   0              inf')),
    ('wheel', 'lost_ignore.log', None, None, 50, (Outcome.LOST_ATOMS, 'Loop time')),
    ('wheel', 'timeout.log', None, None, 10**8, (Outcome.WALLTIME, 'WARNING: Wall time limit reached')),
]


def frames_left(source: Path, raw: bytes, left: bytes) -> list[tuple[int, float, bool]]:
    """Return step, largest gamma and finiteness of the frames of a dump that its first bytes hold as a whole."""
    starts = [match.start() for match in re.finditer(rb'^ITEM: TIMESTEP', raw, re.MULTILINE)]
    found = []
    for frame, end in zip(iterate_frames(source), [*starts[1:], len(raw)], strict=False):
        if end <= len(left):
            found.append((frame.step, frame.max_gamma, bool(np.isfinite(frame.positions).all())))
    return found


def gammas_left(log: str) -> list[tuple[int, float]]:
    """Return step and gamma of the whole rows of thermo output, and of the halt line, that the text of a log holds."""
    found, column = [], None
    for line in log[: log.rfind('\n') + 1].splitlines():
        words = line.split()
        if words[:1] == ['Step']:
            column = next((i for i, word in enumerate(words) if word in ('v_max_gamma', 'c_mg')), None)
            width = len(words)
        elif column is not None and len(words) == width and words[0].isdigit():
            found.append((int(words[0]), float(words[column])))
        elif match := re.search(r'Fix halt condition .* step (\d+) with value (\S+)$', line):
            found.append((int(match[1]), float(match[2])))
    return found


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_cut_gives_the_verdict_of_what_is_left(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The line that proves the end, or else gamma over ``gamma_break``, or else only that the run was killed.

    A run that lost atoms after gamma had passed ``gamma_break`` is thus UNCERTAIN when its log was cut before the line
    that says so: that gamma passed is proven by what is left, and must not be forgotten (KILLED would go on with a
    potential that is known to be wrong); that atoms were lost afterwards is not.
    """
    folder_name, log, snapshots, final, target, proof = data.draw(st.sampled_from(CAPTURES))
    folder = tmp_path_factory.mktemp('cut')
    frames: dict[str, list[tuple[int, float, bool]]] = {'snapshots.dump': [], 'final.dump': []}
    text = ''
    for name, source in {'log.lammps': log, 'snapshots.dump': snapshots, 'final.dump': final}.items():
        if source is None:
            continue
        raw = (DATA / folder_name / source).read_bytes()
        raw = gzip.decompress(raw) if source.endswith('.gz') else raw
        left = raw[: data.draw(st.integers(0, len(raw)))]
        (folder / name).write_bytes(left)
        if name == 'log.lammps':
            text = left.decode()
        else:
            frames[name] = frames_left(DATA / folder_name / source, raw, left)
    verdict = judge_folder(folder, target)

    seen = [*gammas_left(text), *((step, gamma) for found in frames.values() for step, gamma, _ in found)]
    over = [step for step, gamma in seen if gamma > 5.0]
    proven = proof is not None and re.search(rf'^{re.escape(proof[1])}.*\n', text, re.MULTILINE) is not None
    if proof is not None and (
        proven or (proof[0] is Outcome.EXPLODED and not all(f[2] for f in frames['snapshots.dump']))
    ):
        assert verdict.outcome is proof[0]
    else:
        assert verdict.outcome is (Outcome.UNCERTAIN if over else Outcome.KILLED)
    assert verdict.message.endswith('.')
    assert verdict.trigger_step == min(over, default=None)
    assert verdict.select_step == min((step for step, gamma in seen if gamma > 2.0), default=None)
    assert verdict.max_gamma == max((gamma for _, gamma in seen if np.isfinite(gamma)), default=None)
    for step, file in (
        (verdict.candidate_step, verdict.candidate_file),
        (verdict.last_valid_step, verdict.last_valid_file),
    ):
        assert (step is None) == (file is None)
        assert file is None or step in [frame[0] for frame in frames[file]]
