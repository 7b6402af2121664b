import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.labels import LabelTaker


def labelled(info=None, arrays=None, **results):
    atoms = bulk('Al', cubic=True)
    atoms.info.update(info or {})
    atoms.arrays.update(arrays or {})
    if results:
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results.update(results)
    return atoms


def take(frames, labels=None, file_format='extxyz'):
    taker = LabelTaker(labels, file_format)
    for index, atoms in enumerate(frames):
        taker.take(atoms, f'frame {index}')
    return taker.notes()


FORCES = np.arange(12.0).reshape(4, 3)


def test_the_energy_that_the_forces_belong_to_is_taken_and_said():
    frames = [labelled(energy=-14.0, free_energy=-14.3, forces=FORCES), labelled(energy=-1.0, free_energy=-1.0)]
    (note,) = take(frames)
    assert [atoms.info['REF_energy'] for atoms in frames] == [-14.3, -1.0]
    assert frames[0].arrays['REF_forces'].tolist() == FORCES.tolist()
    assert all(atoms.calc is None for atoms in frames)
    assert note == (
        'REF_energy is `free_energy`, not `energy`, because the forces are the derivative of the free energy (1 of 2 '
        'structures, first in frame 0)'
    )


def test_it_is_the_one_that_the_labeller_takes():
    from aiida_oodal.engine.label.calculators import label_structure

    class Smeared(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results['energy'] += 1.0

    atoms = bulk('Al', cubic=True)
    atoms.calc = Smeared()
    atoms.get_forces()
    expected = label_structure(atoms, Smeared()).info['REF_energy']
    take([atoms])
    assert atoms.info['REF_energy'] == expected


def test_two_zeros_of_energy_in_one_file_are_told():
    notes = take([labelled(energy=-14.0, free_energy=-14.3), labelled(energy=-2.0), labelled(energy=-3.0)])
    assert 'for want of `free_energy`' in notes[1]
    assert notes[1].endswith('two zeros of energy (2 of 3 structures, first in frame 1)')
    assert take([labelled(energy=-14.0), labelled(energy=-2.0)]) == []


@pytest.mark.parametrize('file_format', ['lammps-dump-text', 'lammps-data', 'dlp-history', 'xsf', 'npz'])
def test_results_of_a_format_without_labels_are_labels_only_by_name(file_format):
    frames = [labelled(energy=0.0, forces=FORCES, charges=np.ones(4)), labelled()]
    (note,) = take(frames, file_format=file_format)
    assert not {'REF_energy', 'energy'} & set(frames[0].info)
    assert not {'REF_forces', 'forces'} & set(frames[0].arrays)
    assert frames[0].arrays['charges'].tolist() == [1, 1, 1, 1]
    assert note.startswith(f'energy, forces of a {file_format} file are those of the potential that ran it')
    assert "labels={'energy': 'energy', 'forces': 'forces'} (1 of 2 structures, first in frame 0)" in note
    frames = [labelled(energy=-2.0, forces=FORCES)]
    assert take(frames, {'energy': 'energy', 'forces': 'forces'}, file_format) == []
    assert frames[0].info['REF_energy'] == -2.0
    assert frames[0].arrays['REF_forces'].tolist() == FORCES.tolist()


def test_named_labels_are_taken_wherever_they_stand_and_nothing_else_is():
    frames = [
        labelled({'dft': -5.0}, {'f_dft': FORCES}, energy=-1.0, forces=FORCES + 1, stress=np.ones(6)),
        labelled({'dft': None}, {'f_dft': FORCES}),
    ]
    notes = take(frames, {'energy': 'dft', 'forces': 'f_dft', 'stress': 'stress'})
    assert frames[0].info['REF_energy'] == -5.0
    assert frames[0].arrays['REF_forces'].tolist() == FORCES.tolist()
    assert frames[0].info['REF_stress'].tolist() == [1.0] * 6
    assert 'f_dft' not in frames[0].arrays
    assert notes[:2] == [
        "labels: 'dft' (energy) is in 1 of 2 structures only",
        "labels: 'stress' (stress) is in 1 of 2 structures only",
    ]
    assert 'energy, forces were not named among the labels and are dropped' in notes[2]


def test_a_virial_is_minus_the_stress_times_the_volume():
    atoms = labelled({'virial': np.diag([1.0, 2.0, 3.0])})
    take([atoms], {'virial': 'virial'})
    np.testing.assert_allclose(atoms.info['REF_stress'], -np.diag([1.0, 2.0, 3.0]) / atoms.get_volume())


def test_the_order_of_a_stress_of_six_numbers_is_said():
    (note,) = take([labelled(energy=-1.0, stress=np.arange(6.0))])
    assert note.startswith('a stress of six numbers is taken for xx yy zz yz xz xy (1 of 1')
    assert take([labelled(energy=-1.0, stress=np.arange(9.0))]) == []


def test_labels_under_their_own_names_are_not_mixed_with_others():
    frames = [labelled({'REF_energy': -7.0}, energy=-1.0, forces=FORCES)]
    (note,) = take(frames)
    assert frames[0].info['REF_energy'] == -7.0
    assert 'REF_forces' not in frames[0].arrays
    assert note.startswith('labels are those named REF_..., and energy, forces and stress beside them dropped')


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ({'energies': 'x'}, "labels: 'energies' is none; there are energy, forces, stress, virial"),
        ({'energy': 3}, 'labels: energy = 3 must be the name'),
        ({'stress': 'a', 'virial': 'b'}, 'give stress or virial, not both'),
        ({'energy': 'dft'}, r"labels: no structure has 'dft' \(energy\); there is forces, step"),
    ],
)
def test_labels_that_cannot_be_taken_are_refused(labels, message):
    with pytest.raises(OodalError, match=message):
        take([labelled({'step': 1}, forces=FORCES)], labels)
