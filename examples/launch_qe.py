"""Launch two campaigns that Quantum ESPRESSO labels: ``verdi run examples/launch_qe.py``.

Aluminium and an Al-Mg alloy are heated with potentials that know a few cold crystals only. Whatever MD halts at is cut
out as a cube of about 32 atoms, labelled by ``pw.x`` through Slurm, and learned. Cutoffs are low and the potentials
small, so that a label takes seconds of one core: this shows the way, not a potential to be used.

It needs the computer and the codes of ``docs/labels.md``, and Debian's ``quantum-espresso-data`` or other files in
``PSEUDOS``. Run it twice and it finds the campaigns of the first time.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from aiida.engine import ProcessBuilder
from aiida.orm import ProcessNode, QueryBuilder, load_code
from aiida.plugins import DataFactory, GroupFactory, WorkflowFactory
from ase import Atoms
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import submit_once, wait_for

COMPUTER = 'a100-slurm'
# One for all: smearing belongs to the level of theory, and energies of free atoms must be of that of the crystals.
PROTOCOL = 'quick'
PSEUDOS = Path('/usr/share/espresso/pseudo')
FILES = {'Al': 'Al.pz-vbc.UPF', 'Mg': 'Mg.pz-n-vbc.UPF'}
# Angstrom: of fcc Al in the local density approximation.
LATTICE_CONSTANT = 3.98
# By name the elements, and the share of magnesium.
ALLOYS = {'aluminium': (['Al'], 0.0), 'Al-Mg': (['Al', 'Mg'], 0.25)}
# Crystals that the first potential knows; edges of their cells and of the walker's, in unit cells.
N_CRYSTALS = 12
REPEATS = 2
WALKER_REPEATS = 3
STEPS = 1000
MAX_CLUSTERS = 4
MAX_ROUNDS = 4

CampaignWorkChain = WorkflowFactory('oodal.campaign')
PwLabelWorkChain = WorkflowFactory('oodal.label.pw')
PseudoPotentialFamily = GroupFactory('pseudo.family')
StructureSetData = DataFactory('oodal.structures')
UpfData = DataFactory('pseudo.upf')


def find_family(label: str) -> str:
    """Return the label of a family of the files above, made at the first run."""
    if not QueryBuilder().append(PseudoPotentialFamily, filters={'label': label}).count():
        with TemporaryDirectory() as folder:
            for name in FILES.values():
                (Path(folder) / name).write_bytes((PSEUDOS / name).read_bytes())
            PseudoPotentialFamily.create_from_folder(Path(folder), label, pseudo_type=UpfData)
    return label


def say_level(elements: list[str]) -> dict:
    """Return what pw.x is told: a low cutoff, and the Gamma point for crystals as for clusters, which are as large."""
    parameters = {'SYSTEM': {'ecutwfc': 12.0, 'ecutrho': 48.0}}
    return {
        'elements': elements,
        'workflow': {'pseudo_family': find_family('vbc'), 'pw': {'parameters': parameters}},
        'settings': {'gamma_only': 'all'},
        'batch_size': 4,
    }


def make_crystals(magnesium: float) -> StructureSetData:
    """Return cold fcc crystals of 32 atoms, each strained, displaced and, if it has magnesium, mixed at random."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(N_CRYSTALS):
        atoms = bulk('Al', 'fcc', a=LATTICE_CONSTANT * (1 + random.uniform(-0.015, 0.015)), cubic=True).repeat(REPEATS)
        atoms.symbols[random.random(len(atoms)) < magnesium] = 'Mg'
        atoms.positions += random.normal(scale=0.05, size=(len(atoms), 3))
        frames.append(atoms)
    return StructureSetData(frames)


def build_free_atoms(elements: list[str]) -> ProcessBuilder:
    """Label an atom of each element alone in a box: from these energies the potentials measure theirs."""
    builder = PwLabelWorkChain.get_builder_from_protocol(
        code=load_code(f'pw.x@{COMPUTER}'),
        computer=find_computer(COMPUTER),
        protocol=PROTOCOL,
        overrides=say_level(elements),
        options={'withmpi': False},
    )
    builder.structures = StructureSetData([Atoms(symbol, cell=[8, 8, 8], pbc=True) for symbol in elements])
    return builder


def build_campaign(elements: list[str], magnesium: float, free_atoms: ProcessNode) -> ProcessBuilder:
    """One walker through the melting point."""
    labelled = wait_for(free_atoms).outputs.labels
    walker = bulk('Al', 'fcc', a=LATTICE_CONSTANT, cubic=True).repeat(WALKER_REPEATS)
    walker.symbols[np.random.default_rng(1).random(len(walker)) < magnesium] = 'Mg'
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer(COMPUTER),
        protocol=PROTOCOL,
        labeller='oodal.label.pw',
        initial_structures=make_crystals(magnesium),
        walkers={
            'hot': {
                'structure': StructureSetData([walker]),
                'settings': {'temperature': [300, 1800], 'velocity_seed': 7, 'steps': STEPS},
            }
        },
        stages={'label': {'code': load_code(f'pw.x@{COMPUTER}'), 'options': {'withmpi': False}}},
        overrides={
            'label': say_level(elements),
            'train': {
                'cutoff': 4.0,
                'number_of_functions': 30,
                'max_functions': 30,  # with so low a cutoff the forces are not worth more
                'reference_energies': {str(atoms.symbols): atoms.info['REF_energy'] for atoms in labelled},
            },
            # a cube of 8.2 angstrom: more than twice the cutoff
            'carve': {'radius': 2.5, 'buffer': 1.5},
            'select': {'max_clusters': MAX_CLUSTERS},
            'max_rounds': MAX_ROUNDS,
        },
    )


campaigns = {}
for name, (elements, magnesium) in ALLOYS.items():
    free_atoms = submit_once(f'{name} by pw.x: free atoms', lambda elements=elements: build_free_atoms(elements))
    campaigns[name] = submit_once(
        f'{name} by pw.x: campaign',
        lambda elements=elements, magnesium=magnesium, atoms=free_atoms: build_campaign(elements, magnesium, atoms),
    )
    pk = campaigns[name].pk
    print(f'{name}: campaign {pk}; follow it with `aiida-oodal watch {pk}`')
