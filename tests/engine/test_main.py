import json
import subprocess
import sys

import numpy as np
from ase.build import bulk

from aiida_oodal.engine.__main__ import main
from aiida_oodal.engine.structures import StructureSet


def write_job(folder, **job):
    path = folder / 'job.json'
    path.write_text(json.dumps(job))
    return path


def test_a_command_runs_from_the_shell(tmp_path):
    StructureSet.from_atoms([bulk('Al', cubic=True)]).save(tmp_path / 'structures.npz')
    path = write_job(tmp_path, structures='structures.npz', calculator={'calculator': 'emt'})
    command = [sys.executable, '-m', 'aiida_oodal.engine', 'label', str(path)]
    assert subprocess.run(command, check=False).returncode == 0
    labelled = StructureSet.load(tmp_path / 'labels.npz')[0]
    np.testing.assert_allclose(labelled.arrays['REF_forces'], 0.0, atol=1e-12)


def test_bad_input_is_told_in_a_file_and_on_stderr(tmp_path, capsys):
    path = write_job(tmp_path, structures='nowhere.npz', calculator={'calculator': 'emt'})
    assert main(['label', str(path)]) == 1
    message = json.loads((tmp_path / 'error.json').read_text())['message']
    assert 'nowhere.npz' in message
    assert message in capsys.readouterr().err
