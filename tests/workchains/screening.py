"""A screening of hot and cold Al-Cu by the tiny models of the tests, through real jobs; many tests look at it."""

from pathlib import Path

import ase.io
from aiida.engine import run_get_node
from aiida.orm import Dict, Int, load_computer
from ase import units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from numpy.random import default_rng

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.data import MaceModelData, StructureSetData
from aiida_oodal.workchains.screen import ScreenWorkChain

DATA = Path(__file__).parents[1] / 'data' / 'mace_alcu'


def heat(atoms, temperature, n_frames):
    """Return labelled frames of EMT's own MD."""
    atoms = atoms.copy()
    atoms.calc = EMT(asap_cutoff=False)
    md = Langevin(atoms, 4 * units.fs, temperature_K=temperature, friction=0.05, fixcm=False, rng=default_rng(3))
    md.run(100)
    frames = []
    for _ in range(n_frames):
        md.run(25)
        frame = atoms.copy()
        frame.info['REF_energy'] = atoms.get_potential_energy()
        frame.arrays['REF_forces'] = atoms.get_forces()
        frames.append(frame)
    return frames


def run_screening():
    """Run it and return the node of the WorkChain."""
    heldout = ase.io.read(DATA / 'heldout.extxyz', ':')
    alloy = next(atoms for atoms in heldout if len(set(atoms.numbers)) == 2)
    builder = ScreenWorkChain.get_builder()
    builder.ensembles = {
        'T1': {
            'models': {f'w{seed}': MaceModelData(DATA / f'w{seed}.model') for seed in range(1, 5)},
            'reference': StructureSetData(ase.io.read(DATA / 'train.extxyz', ':')),
            'heldout': StructureSetData(heldout),
        }
    }
    builder.targets = {'hot': {'structures': StructureSetData(heat(alloy, 2500, 12))}}
    builder.embed.code = get_engine_code()
    builder.embed.metadata.computer = load_computer('localhost')
    builder.embed.settings = Dict({'forces': True})
    builder.candidates = Dict({'n': 3, 'level': 0.9, 'method': 'farthest'})
    # Small enough for the reference set to be sharded.
    builder.atoms_per_job = Int(800)
    return run_get_node(builder)[1]
