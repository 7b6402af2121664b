from aiida_oodal.engine.md.log import read_log
from aiida_oodal.engine.md.verdict import RestartPoint, find_restart


def log_of(tmp_path, steps):
    rows = ''.join(f'{step} 300\n' for step in steps)
    path = tmp_path / 'log.lammps'
    path.write_text(f'LAMMPS (22 Jul 2025)\nPer MPI rank memory allocation\nStep Temp\n{rows}')
    return read_log(path)


def find(tmp_path, steps, every=100, wrote_final=False):
    return find_restart(log_of(tmp_path, steps), every, wrote_final=wrote_final)


def test_a_file_counts_once_a_later_step_was_printed(tmp_path):
    assert find(tmp_path, range(0, 101, 50)) is None  # that of step 100 may be half written
    assert find(tmp_path, range(0, 151, 50)) == RestartPoint('periodic.restart.1', 100)
    assert find(tmp_path, range(0, 201, 50)) == RestartPoint('periodic.restart.1', 100)
    assert find(tmp_path, range(0, 251, 50)) == RestartPoint('periodic.restart.2', 200)
    assert find(tmp_path, range(0, 351, 50)) == RestartPoint('periodic.restart.1', 300)


def test_every_run_begins_with_the_first_file(tmp_path):
    assert find(tmp_path, range(250, 351, 50)) == RestartPoint('periodic.restart.1', 300)
    assert find(tmp_path, range(300, 451, 50)) == RestartPoint('periodic.restart.1', 400)
    assert find(tmp_path, range(300, 401, 50)) is None


def test_the_final_file_is_better_and_none_is_none(tmp_path):
    assert find(tmp_path, range(0, 251, 50), wrote_final=True) == RestartPoint('final.restart', 250)
    assert find(tmp_path, range(0, 251, 50), every=None) is None
    assert find(tmp_path, []) is None
