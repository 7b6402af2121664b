from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import ase
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.engine import files
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label import job
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.label.workers import label_all
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.models import open_model
from aiida_oodal.engine.structures import StructureSet

MACE_ALCU = Path(__file__).parents[2] / 'data' / 'mace_alcu'
EMT_SPEC = {'calculator': 'emt', 'parameters': {}}
JOB = {'structures': 'structures.npz', 'calculator': EMT_SPEC}


def write(folder, structures):
    StructureSet.from_atoms(structures).save(folder / 'structures.npz')


def results(folder):
    return json.loads((folder / files.RESULTS_FILE).read_text())


def test_a_set_comes_back_labelled_and_in_order(tmp_path):
    structures = strained_crystals(count=3, repeat=(1, 1, 1))
    for step, atoms in enumerate(structures):
        atoms.info['step'] = 10 * step
        atoms.arrays['force_mask'] = np.array([1.0, 0.0, 0.0, 0.0])
    write(tmp_path, structures)
    job.run_job(JOB, tmp_path)
    labelled = list(StructureSet.load(tmp_path / files.LABELS_FILE))
    assert [atoms.info['index'] for atoms in labelled] == [0, 1, 2]
    assert [atoms.info['step'] for atoms in labelled] == [0, 10, 20]
    for before, after in zip(structures, labelled, strict=True):
        expected = label_structure(before, EMT())
        assert after.info['REF_energy'] == expected.info['REF_energy']
        assert np.array_equal(after.arrays['REF_forces'], expected.arrays['REF_forces'])
        assert np.array_equal(after.info['REF_stress'], expected.info['REF_stress'])
        assert np.array_equal(after.arrays['force_mask'], before.arrays['force_mask'])
    found = results(tmp_path)
    assert found.pop('core_seconds') > 0
    assert found == {
        'n_structures': 3,
        'n_labelled': 3,
        'failures': [],
        'seconds': {},
        'versions': {'ase': ase.__version__},
        'complete': True,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ['labels.npz', 'results.json', 'structures.npz']


def test_a_structure_that_fails_does_not_lose_the_others(tmp_path, capsys):
    good = strained_crystals(count=2, repeat=(1, 1, 1))
    write(tmp_path, [good[0], Atoms('Na2', positions=[[0, 0, 0], [0, 0, 3]]), good[1]])
    job.run_job(JOB, tmp_path)
    assert [atoms.info['index'] for atoms in StructureSet.load(tmp_path / files.LABELS_FILE)] == [0, 2]
    (failure,) = results(tmp_path)['failures']
    assert failure['index'] == 1
    assert 'structure 1 (2 atoms of Na)' in failure['message']
    assert '2 of 3 structures labelled' in capsys.readouterr().out


def test_what_is_done_is_on_disk_before_the_job_ends(tmp_path, monkeypatch):
    """As if a walltime had ended the job while it worked on the third structure."""
    monkeypatch.setattr(job, '_SAVE_INTERVAL', -1.0)

    def until_killed(*arguments, **keywords):
        for result in label_all(*arguments, **keywords):
            if result.index == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(job, 'label_all', until_killed)
    write(tmp_path, strained_crystals(count=3, repeat=(1, 1, 1)))
    with pytest.raises(KeyboardInterrupt):
        job.run_job(JOB, tmp_path)
    found = results(tmp_path)
    assert (found['n_structures'], found['n_labelled'], found['failures'], found['complete']) == (3, 2, [], False)
    assert len(StructureSet.load(tmp_path / files.LABELS_FILE)) == 2


def test_not_one_label_is_an_error_that_gives_the_first_reason(tmp_path):
    write(tmp_path, [Atoms('Na'), Atoms('K')])
    with pytest.raises(OodalError, match=r'none of 2 structures could be labelled. EMT cannot label structure 0'):
        job.run_job(JOB, tmp_path)
    assert [failure['index'] for failure in results(tmp_path)['failures']] == [0, 1]


def test_the_time_of_each_structure_is_booked_under_its_key(tmp_path):
    structures = [*strained_crystals(count=2, repeat=(1, 1, 1)), Atoms('Na')]
    for number, atoms in enumerate(structures):
        atoms.info['queue_key'] = f'q{number}'
    write(tmp_path, structures)
    job.run_job({**JOB, 'cores': 3, 'workers': 2}, tmp_path)
    found = results(tmp_path)
    assert sorted(found['seconds']) == ['q0', 'q1', 'q2']
    assert min(found['seconds'].values()) >= 0
    # all cores are paid for, also those that nobody used
    assert found['core_seconds'] >= 3 * max(found['seconds'].values())
    assert found['failures'][0]['queue_key'] == 'q2'


def test_a_mace_model_is_a_teacher(tmp_path):
    """The file is found wherever the calculator is made, and the labels are those of the model."""
    require('mace')
    shutil.copy(MACE_ALCU / 'w1.model', tmp_path / 'teacher_mace.model')
    write(tmp_path, strained_crystals(count=3, repeat=(1, 1, 1)))
    teacher = {
        'calculator': 'mace.calculators:MACECalculator',
        'parameters': {'model_paths': '{teacher}', 'device': 'cpu', 'default_dtype': 'float64'},
    }
    given = {**JOB, 'calculator': teacher, 'files': {'teacher': 'teacher_mace.model'}, 'workers': 2, 'cores': 2}
    script = (
        'import json, sys\nfrom pathlib import Path\nfrom aiida_oodal.engine.label.job import run_job\n'
        'run_job(json.loads(sys.argv[1]), Path(sys.argv[2]))'
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', script, json.dumps(given), str(tmp_path)], check=True)
    labelled = StructureSet.load(tmp_path / files.LABELS_FILE)
    assert len(labelled) == 3
    model = open_model(tmp_path / 'teacher_mace.model', precision='float64')
    batch = merge_graphs([build_graph(atoms, model.info.cutoff) for atoms in labelled])
    expected = model.evaluate(batch, forces=True)
    np.testing.assert_allclose(labelled.info['REF_energy'], expected.energies, atol=1e-8)
    np.testing.assert_allclose(labelled.arrays['REF_forces'], expected.forces, atol=1e-8)
    assert results(tmp_path)['versions'] == {name: version(name) for name in ('ase', 'mace-torch')}


def test_input_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(OodalError, match="lacks 'structures'"):
        job.run_job({'calculator': EMT_SPEC}, tmp_path)
    write(tmp_path, [])
    with pytest.raises(OodalError, match=r'structures\.npz: the set is empty'):
        job.run_job(JOB, tmp_path)
