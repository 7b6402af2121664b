"""Screen structures with an ensemble of MACE models: ``verdi run examples/launch_screening.py``.

Four tiny models of Al-Cu, which know crystals near equilibrium, look at strained and displaced ones. Where the models
disagree more than on structures like those they were trained on, a structure is a candidate for a label. Put your own
files in the place of those below; ``aiida-oodal screen FILE.yaml`` does the same from a file of targets.

Run it twice and it finds the screening of the first time.
"""

from pathlib import Path

from aiida.engine import ProcessBuilder
from aiida.plugins import DataFactory, WorkflowFactory
from ase import Atoms
from ase.io import read

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import submit_once

COMPUTER = 'localhost'
FOLDER = Path('tests/data/mace_alcu')  # of this repository; `verdi run` it from there
MODELS = ('w1', 'w2', 'w3', 'w4')
# What the models were trained on, and structures like these that they were not: the second set the thresholds.
TRAINED = 'train.extxyz'
HELDOUT = 'heldout.extxyz'
# At most so many candidates, above the threshold that 90 % of the held-out structures stay below.
CANDIDATES = {'n': 10, 'level': 0.9, 'method': 'farthest'}
STRAINS = (0.0, 0.02, 0.05, 0.08, 0.12)

MaceModelData = DataFactory('oodal.mace')
ScreenWorkChain = WorkflowFactory('oodal.screen')
StructureSetData = DataFactory('oodal.structures')


def make_target() -> StructureSetData:
    """Return held-out crystals that are strained: the first ones are known, the last ones are not."""
    frames = []
    for labelled in read(FOLDER / HELDOUT, ':5'):
        atoms = Atoms(labelled.symbols, labelled.positions, cell=labelled.cell, pbc=True)  # its label is not theirs
        for strain in STRAINS:
            frames.append(atoms.copy())
            frames[-1].set_cell(atoms.cell * (1 + strain), scale_atoms=True)
    return StructureSetData(frames)


def build_screening() -> ProcessBuilder:
    """One ensemble, one set to screen."""
    builder = ScreenWorkChain.get_builder()
    builder.ensembles = {
        'AlCu': {
            'models': {name: MaceModelData(FOLDER / f'{name}.model') for name in MODELS},
            'reference': StructureSetData.from_file(FOLDER / TRAINED),
            'heldout': StructureSetData.from_file(FOLDER / HELDOUT),
        }
    }
    builder.targets = {'strained': {'structures': make_target()}}
    builder.candidates = CANDIDATES
    for stage, job in ((builder.embed, 'latents'), (builder.judge, 'fit_reference')):
        stage.code = get_engine_code()
        stage.metadata.computer = find_computer(COMPUTER)
        stage.metadata.options.update(get_job_options(stage.metadata.computer, job))
    return builder


screening = submit_once('Al-Cu: screening of strained crystals', build_screening)
print(f'screening {screening.pk}: when it has ended, `aiida-oodal scores stats {screening.pk}` says what is not known')
