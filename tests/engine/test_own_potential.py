"""A family of potentials of one's own, in one file: it drives MD, grades it, and its clusters are graded again."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list
from machine import require

from aiida_oodal.engine import evaluator
from aiida_oodal.engine.carve.job import run_job as carve
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Evaluation, Grades
from aiida_oodal.engine.md import EXIT_HALT
from aiida_oodal.engine.md.dump import iterate_frames
from aiida_oodal.engine.md.embedded import run_job as run_md
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.start.home import FramesHome
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.templates import get_template

OWN = {'module': __name__, 'cutoff': 4.0}
#: Distance of closest neighbours in the crystal [angstrom], and how far they may be from it without being new.
REST, KNOWN = 2.83, 0.25


class Springs:
    """Morse-like pairs; what is unusual is a pair much shorter than in the crystal."""

    cutoff = OWN['cutoff']
    has_active_set = False

    def set_neighbours(self, neighbours):
        self._list = neighbours

    def compute(self, positions, *, gamma):
        found = self._list
        local = len(found.offsets) - 1
        i = np.repeat(np.arange(local), np.diff(found.offsets))
        j = found.indices
        vectors = positions[j] - positions[i]
        distances = np.linalg.norm(vectors, axis=1)
        near = distances < self.cutoff
        i, j, vectors, distances = i[near], j[near], vectors[near], distances[near]
        x = np.exp(-1.2 * (distances - REST))
        pull = 0.2 * 1.2 * (x - x**2)  # derivative of half of 0.2 (x^2 - 2 x)
        pairs = pull[:, None] * vectors / distances[:, None]
        forces = np.zeros((local, 3))
        np.add.at(forces, i, pairs)
        np.add.at(forces, found.origins[j], -pairs)
        virial = -np.einsum('pi,pj->ij', vectors, pairs)[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        energy = float(np.sum(0.1 * (x**2 - 2 * x)))
        return Evaluation(energy, forces, virial, strangeness(i, distances, local) if gamma else None)

    def grade(self, cells, *, centres_only=False):
        graded = []
        for cell in cells:
            i, distances = neighbor_list('id', cell, self.cutoff)
            gamma = strangeness(i, distances, len(cell))
            graded.append(Grades(gamma, descriptor=np.array([distances[i == 0].min()])))
        return graded


def strangeness(i, distances, count):
    gamma = np.zeros(count)
    np.maximum.at(gamma, i, np.maximum(REST - distances, 0.0) / KNOWN)
    return gamma


def open_forces(potential, folder):
    return Springs()


open_grader = open_forces


def test_it_drives_md_halts_it_and_grades_its_clusters(tmp_path):
    require('lammps')
    atoms = bulk('Al', a=4.0, cubic=True).repeat(4)
    settings = MdSettings.load({'temperature': 1500, 'steps': 2000, 'sample_every': 10, 'gamma_break': 4.0})
    script = render_input(
        get_template('lammps/md.in.j2'), settings, forces='embedded', elements=['Al'], cutoff=OWN['cutoff']
    )
    (tmp_path / 'md.in').write_text(script)
    write_structure(tmp_path / 'structure.data', atoms, ['Al'])
    with pytest.raises(SystemExit) as ended:
        run_md({'input': 'md.in', 'potential': {**OWN, 'elements': ['Al']}}, tmp_path)
    assert ended.value.code == EXIT_HALT
    last = list(iterate_frames(tmp_path / 'final.dump'))[-1]
    assert last.max_gamma > 4.0
    snapshot = FramesHome(atoms, ['Al']).bring(last)
    i, distances = neighbor_list('id', snapshot, OWN['cutoff'])
    np.testing.assert_allclose(snapshot.arrays['gamma'], strangeness(i, distances, len(atoms)), rtol=1e-4, atol=1e-4)

    StructureSet.from_atoms([snapshot]).save(tmp_path / 'structures.npz')
    job = {
        'snapshots': 'structures.npz',
        'settings': CarveSettings.load({'radius': 3.0, 'buffer': 3.0, 'tolerance': 1e-3}).plain(),
        'thresholds': Thresholds(gamma_break=4.0).plain(),
        'learned': OWN,
        'cutoff': OWN['cutoff'],
    }
    carve(job, tmp_path)
    taken = [centre for centre in json.loads((tmp_path / 'results.json').read_text())['centres'] if centre['taken']]
    assert taken
    for centre in taken:
        assert centre['gamma_cluster'] == pytest.approx(centre['gamma'], rel=1e-3)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(OodalError, match=r"module 'no_such_potential' of the potential: .* install it where the job"):
        evaluator.open_grader({'module': 'no_such_potential'}, Path())
