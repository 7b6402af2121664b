from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn import label
from aiida_oodal.engine.learn.crystals import strained_crystals
from aiida_oodal.engine.learn.reference import label_structure
from aiida_oodal.engine.structures import StructureSet

EMT_SPEC = {'calculator': 'emt', 'parameters': {}}
JOB = {'structures': 'structures.npz', 'reference': EMT_SPEC}


def write(folder, structures):
    StructureSet.from_atoms(structures).save(folder / 'structures.npz')


def results(folder):
    return json.loads((folder / label.RESULTS_FILE).read_text())


def test_a_set_comes_back_labelled_and_in_order(tmp_path):
    structures = strained_crystals(count=3, repeat=(1, 1, 1))
    for step, atoms in enumerate(structures):
        atoms.info['step'] = 10 * step
        atoms.arrays['force_mask'] = np.array([1.0, 0.0, 0.0, 0.0])
    write(tmp_path, structures)
    label.run_job(JOB, tmp_path)
    labelled = list(StructureSet.load(tmp_path / label.LABELS_FILE))
    assert [atoms.info['index'] for atoms in labelled] == [0, 1, 2]
    assert [atoms.info['step'] for atoms in labelled] == [0, 10, 20]
    for before, after in zip(structures, labelled, strict=True):
        expected = label_structure(before, EMT())
        assert after.info['REF_energy'] == expected.info['REF_energy']
        assert np.array_equal(after.arrays['REF_forces'], expected.arrays['REF_forces'])
        assert np.array_equal(after.info['REF_stress'], expected.info['REF_stress'])
        assert np.array_equal(after.arrays['force_mask'], before.arrays['force_mask'])
    assert results(tmp_path) == {'n_structures': 3, 'n_labelled': 3, 'failures': [], 'complete': True}
    assert sorted(path.name for path in tmp_path.iterdir()) == ['labels.npz', 'results.json', 'structures.npz']


def test_a_structure_that_fails_does_not_lose_the_others(tmp_path, capsys):
    good = strained_crystals(count=2, repeat=(1, 1, 1))
    write(tmp_path, [good[0], Atoms('Na2', positions=[[0, 0, 0], [0, 0, 3]]), good[1]])
    label.run_job(JOB, tmp_path)
    assert [atoms.info['index'] for atoms in StructureSet.load(tmp_path / label.LABELS_FILE)] == [0, 2]
    (failure,) = results(tmp_path)['failures']
    assert failure['index'] == 1
    assert 'structure 1 (2 atoms of Na)' in failure['message']
    assert '2 of 3 structures labelled' in capsys.readouterr().out


def test_what_is_done_is_on_disk_before_the_job_ends(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def label_then_die(atoms, calculator, *, index=None):
        if index == 2:
            raise Killed
        return label_structure(atoms, calculator, index=index)

    monkeypatch.setattr(label, '_SAVE_INTERVAL', -1.0)
    monkeypatch.setattr(label, 'label_structure', label_then_die)
    write(tmp_path, strained_crystals(count=3, repeat=(1, 1, 1)))
    with pytest.raises(Killed):
        label.run_job(JOB, tmp_path)
    assert results(tmp_path) == {'n_structures': 3, 'n_labelled': 2, 'failures': [], 'complete': False}
    assert len(StructureSet.load(tmp_path / label.LABELS_FILE)) == 2


def test_not_one_label_is_an_error_that_gives_the_first_reason(tmp_path):
    write(tmp_path, [Atoms('Na'), Atoms('K')])
    with pytest.raises(OodalError, match=r'none of 2 structures could be labelled. EMT cannot label structure 0'):
        label.run_job(JOB, tmp_path)
    assert [failure['index'] for failure in results(tmp_path)['failures']] == [0, 1]


def test_input_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(OodalError, match="lacks 'structures'"):
        label.run_job({'reference': EMT_SPEC}, tmp_path)
    write(tmp_path, [])
    with pytest.raises(OodalError, match=r'structures\.npz: the set is empty'):
        label.run_job(JOB, tmp_path)
