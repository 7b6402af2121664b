"""Every way in keeps geometry and labels, and says what else it kept, renamed, dropped or refused."""

import gzip
import subprocess
import sys
import tracemalloc

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import write
from ase.spacegroup import crystal

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.read import read_structures
from aiida_oodal.engine.exchange.stream import StructureStream
from aiida_oodal.engine.structures import StructureSet


def alloy(scale=1.0):
    atoms = bulk('CuAu', 'cesiumchloride', a=3.2 * scale).repeat(2)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms


def labelled(scale=1.0):
    atoms = alloy(scale)
    atoms.info['REF_energy'] = atoms.get_potential_energy()
    atoms.arrays['REF_forces'] = atoms.get_forces()
    atoms.calc = None
    return atoms


def write_extxyz(path, *comments, columns='species:S:1:pos:R:3', rows=('Al 0 0 0', 'Al 2 2 2')):
    box = 'Lattice="5 0 0 0 5 0 0 0 5"'
    path.write_text(
        ''.join(f'{len(rows)}\n{box} Properties={columns} {c}\n' + '\n'.join(rows) + '\n' for c in comments)
    )
    return path


def dump(*frames, columns='id type x y z fx fy fz', head=''):
    text = head
    for step, rows in enumerate(frames):
        text += (
            f'ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(rows)}\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n'
        )
        text += f'ITEM: ATOMS {columns}\n' + '\n'.join(rows) + '\n'
    return text


def assert_labels(atoms, expected, atol=1e-6):
    assert atoms.info['REF_energy'] == pytest.approx(expected.info['REF_energy'], abs=atol)
    np.testing.assert_allclose(atoms.arrays['REF_forces'], expected.arrays['REF_forces'], atol=atol)
    np.testing.assert_allclose(atoms.positions, expected.positions, atol=atol)
    assert atoms.get_chemical_symbols() == expected.get_chemical_symbols()


# --- the same labelled structures by every way ---


@pytest.mark.parametrize(
    'name', ['set.npz', 'set.extxyz', 'set.xyz', 'set.extxyz.gz', 'set.traj', 'set.db', 'set.json']
)
def test_labels_survive_every_way_in(tmp_path, name):
    expected = [labelled(), labelled(1.02)]
    path = tmp_path / name
    if name == 'set.npz':
        StructureSet.from_atoms(expected).save(path)
    elif name.endswith('.gz'):
        write(tmp_path / 'set.extxyz', expected)
        path.write_bytes(gzip.compress((tmp_path / 'set.extxyz').read_bytes()))
    elif path.suffix in ('.extxyz', '.xyz'):
        write(path, expected, format='extxyz')
    else:
        write(path, [alloy(), alloy(1.02)])
    reading = read_structures(path)
    assert reading.failures == []
    assert reading.structures.notes == ()
    for atoms, wanted in zip(reading.structures, expected, strict=True):
        assert_labels(atoms, wanted)


def test_a_set_in_its_own_format_is_read_as_it_is(tmp_path):
    frames = [labelled(), fcc111('Al', (2, 2, 2), vacuum=4.0)]
    frames[1].set_constraint(FixAtoms([0, 1]))
    StructureSet.from_atoms(frames).save(tmp_path / 'set.npz')
    loaded = read_structures(tmp_path / 'set.npz').structures
    assert loaded[1].get_tags().tolist() == frames[1].get_tags().tolist()
    assert loaded[1].constraints[0].index.tolist() == [0, 1]
    assert_labels(loaded[0], frames[0], atol=0)


def test_a_set_whose_energies_became_text_is_mended(tmp_path):
    arrays = StructureSet.from_atoms([labelled(), labelled(1.02)]).to_arrays()
    arrays['info__REF_energy'] = np.array(['-1.5', 'None'])
    StructureSet.from_arrays(arrays).save(tmp_path / 'old.npz')
    reading = read_structures(tmp_path / 'old.npz')
    assert reading.structures.info['REF_energy'].tolist()[0] == -1.5
    assert np.isnan(reading.structures.info['REF_energy'][1])
    assert "frame 1: 'None' stands for a missing number" in reading.structures.notes[0]


# --- LAMMPS ---

ROWS = ['1 1 0 0 0 0.1 0.2 0.3', '2 2 4 4 4 -0.1 -0.2 -0.3']


def test_types_of_lammps_are_not_elements(tmp_path):
    (tmp_path / 'run.dump').write_text(dump(ROWS))
    with pytest.raises(
        OodalError, match=r"run\.dump: the dump has no column `element`.* \(here 1, 2\).*elements=\['Al'"
    ):
        read_structures(tmp_path / 'run.dump')
    with pytest.raises(OodalError, match=r'run\.dump: .*elements are given for types 1 to 1'):
        read_structures(tmp_path / 'run.dump', elements=['Al'])
    reading = read_structures(tmp_path / 'run.dump', elements=['Al', 'Cu'])
    assert reading.structures.symbols == ('Al', 'Cu')


def test_forces_of_a_dump_are_labels_only_by_name(tmp_path):
    (tmp_path / 'renamed.txt').write_text(dump(ROWS, ROWS))
    plain = read_structures(tmp_path / 'renamed.txt', elements=['Al', 'Cu']).structures
    assert set(plain.arrays) == {'id'}
    assert set(plain.info) == {'step'}
    (note,) = plain.notes
    assert note.startswith(f'{tmp_path / "renamed.txt"}: forces of a lammps-dump-text file')
    assert "labels={'forces': 'forces'} (2 of 2 structures, first in frame 0)" in note
    named = read_structures(tmp_path / 'renamed.txt', elements=['Al', 'Cu'], labels={'forces': 'forces'}).structures
    np.testing.assert_allclose(named.arrays['REF_forces'][:2], [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    assert named.notes == ()


def test_a_dump_gives_what_else_it_has(tmp_path):
    rows = ['1 Al 0 0 0 1 0 0 7.5', '2 Cu 4 4 4 0 2 0 -1']
    text = dump(rows, rows, columns='id element x y z vx vy vz c_pe[1]')
    (tmp_path / 'metal.dump').write_text(text)
    (tmp_path / 'real.dump').write_text('ITEM: UNITS\nreal\n' + text)
    (tmp_path / 'lj.dump').write_text('ITEM: UNITS\nlj\n' + text)
    metal, real = (read_structures(tmp_path / f'{name}.dump').structures for name in ('metal', 'real'))
    assert metal.arrays['c_pe_1'].tolist() == [7.5, -1, 7.5, -1]
    assert any("'c_pe[1]' is kept as 'c_pe_1'" in note for note in metal.notes)
    assert metal[1].get_chemical_symbols() == ['Al', 'Cu']
    # angstrom/fs are a thousand angstrom/ps; the units stand before the first frame only
    np.testing.assert_allclose(real.arrays['momenta'], 1000 * metal.arrays['momenta'])
    assert metal.arrays['momenta'].any()
    with pytest.raises(OodalError, match="in units 'lj'"):
        read_structures(tmp_path / 'lj.dump')


def test_a_dump_that_is_cut_keeps_the_frames_before(tmp_path):
    whole = dump(ROWS, ROWS)
    (tmp_path / 'cut.dump').write_text(whole + whole[:80])
    reading = read_structures(tmp_path / 'cut.dump', elements=['Al', 'Cu'])
    assert len(reading.structures) == 2
    assert [(failure.index, failure.message) for failure in reading.failures] == [
        (2, 'the file ends inside this frame')
    ]


def test_data_files_of_lammps_ask_for_elements_too(tmp_path):
    salt = bulk('NaCl', 'rocksalt', a=5.6)
    write(tmp_path / 'bare.lmp', salt, format='lammps-data', masses=False)
    write(tmp_path / 'masses.data', salt, format='lammps-data', masses=True)
    isotopes = bulk('Al', cubic=True)
    isotopes.set_masses([10, 10, 40, 40])
    write(tmp_path / 'isotopes.lmp', isotopes, format='lammps-data', masses=True)
    for name in ('bare.lmp', 'isotopes.lmp'):
        with pytest.raises(OodalError, match=rf"{name}: types of LAMMPS are not elements.*elements=\['Al', 'Cu'\]"):
            read_structures(tmp_path / name)
    assert read_structures(tmp_path / 'bare.lmp', elements=['Na', 'Cl']).structures.symbols == ('Na', 'Cl')
    guessed = read_structures(tmp_path / 'masses.data').structures
    assert guessed.symbols == ('Na', 'Cl')
    assert 'elements (Na, Cl) are those that have the masses of the file' in guessed.notes[0]
    with pytest.raises(OodalError, match="'Xy' is no chemical symbol"):
        read_structures(tmp_path / 'bare.lmp', elements=['Na', 'Xy'])


def test_elements_are_for_lammps_only(tmp_path):
    write(tmp_path / 'set.extxyz', bulk('Al'))
    with pytest.raises(OodalError, match=r'elements are for files of LAMMPS; this one \(extxyz\)'):
        read_structures(tmp_path / 'set.extxyz', elements=['Al'])


# --- energies ---


def test_the_free_energy_is_the_label(tmp_path):
    path = write_extxyz(tmp_path / 'a.extxyz', *['energy=-14.0 free_energy=-14.3'] * 2)
    content = read_structures(path).structures
    assert content.info['REF_energy'].tolist() == [-14.3, -14.3]
    assert '`free_energy`' in content.notes[0]


def test_one_energy_that_is_none_leaves_the_others_numbers(tmp_path):
    path = write_extxyz(tmp_path / 'a.extxyz', 'energy=-14.0', 'energy=None', 'energy=failed', 'energy=-13')
    content = read_structures(path).structures
    np.testing.assert_array_equal(content.info['REF_energy'], [-14.0, np.nan, np.nan, -13.0])
    assert 'REF_energy' not in content[1].info
    (note,) = content.notes
    assert note == (
        f"{path}: info 'REF_energy' is dropped in 2 of 4 structures (frame 1 (line 5): 'None' stands for a missing "
        'number, and 1 other reason)'
    )


# --- metadata ---


def test_nothing_is_refused_for_the_sake_of_a_key(tmp_path):
    path = write_extxyz(
        tmp_path / 'a.extxyz',
        r'energy=-1 a-b/c.d(e)=1 "x y"=2 virial="1 2 3 4 5 6" mixed=1.5 list="_JSON {\"a\": 1}"',
        'energy=-2 tag=3 mixed=word virial="1 2 3 4 5 6"',
    )
    reading = read_structures(path)
    content = reading.structures
    assert reading.failures == []
    assert content.info['REF_energy'].tolist() == [-1.0, -2.0]
    assert content[0].info['a_b_c_d_e'] == 1
    assert content[0].info['x_y'] == 2
    assert content[1].info['tag'] == 3
    assert 'tag' not in content[0].info
    assert content[1].info['virial'].tolist() == [1, 2, 3, 4, 5, 6]
    for key in ("'a-b/c.d(e)' is kept as 'a_b_c_d_e'", "'x y' is kept as 'x_y'", "info 'mixed' is dropped in 1 of 2"):
        assert sum(key in note for note in content.notes) == 1
    assert all(note.startswith(str(path)) for note in content.notes)
    (dropped,) = [note for note in content.notes if "'list'" in note]
    assert "dropped in 1 of 2 structures (frame 0 (line 1): {'a': 1} (dict)" in dropped


@pytest.mark.parametrize('name', ['mixed.extxyz', 'mixed.traj', 'mixed.npz'])
def test_integers_of_some_frames_stay_integers(tmp_path, name):
    frames = [bulk('Al'), fcc111('Al', (1, 1, 3), vacuum=4.0)]
    frames[1].info.clear()
    frames[1].info['kpts'] = 4
    if name.endswith('npz'):
        StructureSet.from_atoms(frames).save(tmp_path / name)
    else:
        write(tmp_path / name, frames)
    content = read_structures(tmp_path / name).structures
    assert content[1].get_tags().tolist() == [3, 2, 1]
    assert content[1].arrays['tags'].dtype.kind == 'i'
    assert not content[0].has('tags')
    assert content[0].info == {}
    if not name.endswith('traj'):
        assert content[1].info == {'kpts': 4}
    assert content.notes == ()


def test_crystals_with_objects_beside_them_are_read(tmp_path):
    salt = crystal(['Na', 'Cl'], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3)
    write(tmp_path / 'salt.cif', salt)
    for content in (read_structures(tmp_path / 'salt.cif').structures, StructureSet.from_atoms([salt])):
        assert len(content[0]) == 8
        (note,) = content.notes
        assert "info 'spacegroup' is dropped in 1 of 1 structures" in note


def test_shared_sites_are_told(tmp_path):
    write(tmp_path / 'alloy.cif', bulk('Al', cubic=True))
    text = (tmp_path / 'alloy.cif').read_text()
    last = text.rstrip().splitlines()[-1]
    shared = last.replace('1.0000', '0.6') + '\n' + last.replace('Al  Al', 'Cu  Cu').replace('1.0000', '0.4') + '\n'
    (tmp_path / 'alloy.cif').write_text(text.rstrip()[: -len(last)] + shared)
    notes = read_structures(tmp_path / 'alloy.cif').structures.notes
    assert any('sites are partly occupied (Al 0.6, Cu 0.4)' in note for note in notes), notes


def test_selective_dynamics_and_move_masks_are_held(tmp_path):
    slab = fcc111('Al', (2, 2, 3), vacuum=5.0)
    slab.info.clear()
    slab.set_constraint(FixAtoms([0, 1, 2, 3]))
    for name, options in (('POSCAR', {'format': 'vasp'}), ('slab.extxyz', {}), ('slab.traj', {}), ('slab.db', {})):
        write(tmp_path / name, slab, **options)
        content = read_structures(tmp_path / name).structures
        assert content[0].constraints[0].index.tolist() == [0, 1, 2, 3], name
        assert content.arrays['move_mask'].sum() == 8


def test_what_users_wrote_into_a_database_is_kept(tmp_path):
    with ase.db.connect(tmp_path / 'rows.db') as rows:
        rows.write(bulk('Al'), relaxed=True, source='mp')
        rows.write(bulk('Cu'), source='icsd')
    content = read_structures(tmp_path / 'rows.db').structures
    assert content[0].info == {'relaxed': True, 'source': 'mp'}
    assert content[1].info == {'source': 'icsd'}
    assert len(read_structures(tmp_path / 'rows.db', index='-1').structures) == 1


# --- what is refused ---


@pytest.mark.parametrize('word', ['D', '13'])
def test_a_species_that_is_none_is_left_out_and_named(tmp_path, word):
    path = write_extxyz(tmp_path / 'a.extxyz', 'energy=-1')
    path.write_text(path.read_text() + path.read_text().replace('Al 2 2 2', f'{word} 2 2 2'))
    reading = read_structures(path)
    assert len(reading.structures) == 1
    (failure,) = reading.failures
    assert (failure.index, failure.line) == (1, 5)
    assert f"line 8: species '{word}' is" in failure.message
    with pytest.raises(OodalError, match=rf"a\.extxyz: no structure can be read: frame 1 .*species '{word}' is"):
        read_structures(path, index='1')


def test_placeholders_are_no_atoms(tmp_path):
    path = write_extxyz(tmp_path / 'a.extxyz', '', rows=('Al 0 0 0', 'X 1 1 1'))
    with pytest.raises(OodalError, match='atom 1 is an X, which stands for no element'):
        read_structures(path)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('absent.cif', None, r'absent\.cif does not exist'),
        ('empty.xyz', '', 'no structure can be read: it holds none, read as extxyz'),
        ('notes.txt', 'nothing of use', r'notes\.txt cannot be read as'),
        (
            'broken.cif',
            'data_x\n_cell_length_a none\n',
            r'broken\.cif: no structure can be read: it holds none, read as cif',
        ),
        ('other.npz', 'PK', r'other\.npz cannot be read as a structure set'),
        ('POSCAR', 'x\n1.0\n4 0 0\n0 4 0\n0 0 4\nD\n1\nDirect\n0 0 0\n', 'POSCAR cannot be read as vasp'),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(OodalError, match=message):
        read_structures(tmp_path / name)


@pytest.mark.parametrize('name', ['set.extxyz', 'set.npz', 'set.traj', 'set.dump'])
@pytest.mark.parametrize(
    ('index', 'kept'), [(':', [0, 1, 2, 3]), ('0', [0]), ('-1', [3]), ('1:3', [1, 2]), ('::2', [0, 2]), ('-2:', [2, 3])]
)
def test_frames_are_chosen_as_ase_chooses_them(tmp_path, name, index, kept):
    frames = [Atoms('Al', [[step, 0, 0]], cell=[9] * 3, pbc=True) for step in range(4)]
    if name.endswith('npz'):
        StructureSet.from_atoms(frames).save(tmp_path / name)
    elif name.endswith('dump'):
        (tmp_path / name).write_text(dump(*([f'1 Al {step} 0 0'] for step in range(4)), columns='id element x y z'))
    else:
        write(tmp_path / name, frames)
    content = read_structures(tmp_path / name, index=index).structures
    assert content.positions[:, 0].tolist() == kept


def test_a_wrong_index_is_refused(tmp_path):
    write(tmp_path / 'set.extxyz', bulk('Al'))
    with pytest.raises(OodalError, match="index = 'first' is none"):
        read_structures(tmp_path / 'set.extxyz', index='first')
    with pytest.raises(OodalError, match='it has none at index 7'):
        read_structures(tmp_path / 'set.extxyz', index='7')


# --- large files ---


def write_large(path, count, n_atoms):
    """Write so many frames; the bytes of a frame are the same, so that they need no parsing here."""
    atoms = Atoms(numbers=[13] * n_atoms, positions=np.random.default_rng(0).random((n_atoms, 3)) * 50, cell=[50] * 3)
    atoms.pbc = True
    atoms.info['REF_energy'] = -1.0
    atoms.arrays['REF_forces'] = atoms.positions - 25
    write(path, atoms, format='extxyz')
    text = path.read_bytes()
    with path.open('wb') as stream:
        for _ in range(count):
            stream.write(text)
    return 8 * n_atoms * 7 * count  # numbers, positions, forces


def test_a_stream_holds_one_frame_however_long_the_file(tmp_path):
    size = write_large(tmp_path / 'large.extxyz', 60, 1000)
    peaks = []
    tracemalloc.start()
    try:
        for item in StructureStream(tmp_path / 'large.extxyz'):
            assert len(item.atoms) == 1000
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert len(peaks) == 60
    # what the first frames took is what all take
    assert peaks[-1] < 1.2 * peaks[2]
    assert peaks[-1] < size


def test_a_set_that_is_read_takes_little_more_than_itself(tmp_path):
    size = write_large(tmp_path / 'large.extxyz', 200, 1000)
    script = f"""
import resource
from aiida_oodal.engine.exchange.read import read_structures
read_structures('{tmp_path}/large.extxyz', index='0')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(read_structures('{tmp_path}/large.extxyz').structures) == 200
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
    # the frames, and the arrays that they are joined to
    assert int(done.stdout) < 2.2 * size


def test_molecules_without_a_cell_are_read(tmp_path):
    write(tmp_path / 'water.xyz', [molecule('H2O'), molecule('CH4')], format='xyz')
    content = read_structures(tmp_path / 'water.xyz').structures
    assert [len(atoms) for atoms in content] == [3, 5]
    assert not content.pbc.any()
