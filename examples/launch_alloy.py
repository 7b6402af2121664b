"""Launch a self-healing campaign on an alloy, Cu-Au: ``verdi run examples/launch_alloy.py``.

The first potential knows cold disordered crystals of all compositions. Walkers of three compositions are heated through
the melting point; what they meet there is labelled and learned. Labels come from ASE's EMT, which takes milliseconds:
put your labeller in its place.

Run it twice and it finds the campaign of the first time. Follow it with ``aiida-oodal watch <PK>``.
"""

import numpy as np
from aiida.engine import ProcessBuilder
from aiida.plugins import DataFactory, WorkflowFactory
from ase import Atoms
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import submit_once

COMPUTER = 'localhost'
CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
# Angstrom; crystals of a composition between the two have one between these.
LATTICE_CONSTANTS = {'Cu': 3.61, 'Au': 4.08}
# Crystals that the first potential knows, and walkers: share of gold, and the temperature that they are heated to.
N_CRYSTALS = 40
WALKERS = {'Cu3Au': (0.25, 1800), 'CuAu': (0.5, 1800), 'CuAu3': (0.75, 1800)}
REPEATS = 3
STEPS = 2000
# Two elements need more functions than one; docs/campaigns.md says what else can be set.
SETTINGS = {
    'label': {'calculator': CALCULATOR},
    'train': {'number_of_functions': 100, 'max_functions': 200},
}

CampaignWorkChain = WorkflowFactory('oodal.campaign')
StructureSetData = DataFactory('oodal.structures')


def make_alloy(gold: float, repeats: int, random: np.random.Generator, strain: float = 0.0) -> Atoms:
    """Return a disordered fcc crystal with a share of gold."""
    a = (1 - gold) * LATTICE_CONSTANTS['Cu'] + gold * LATTICE_CONSTANTS['Au']
    atoms = bulk('Cu', 'fcc', a=a * (1 + random.uniform(-strain, strain)), cubic=True).repeat(repeats)
    atoms.symbols[random.permutation(len(atoms))[: round(gold * len(atoms))]] = 'Au'
    return atoms


def make_crystals() -> StructureSetData:
    """Return crystals of 32 atoms of all compositions, strained by up to 2 % and displaced."""
    random = np.random.default_rng(0)
    frames = [make_alloy(gold, 2, random, strain=0.02) for gold in np.linspace(0, 1, N_CRYSTALS)]
    for atoms in frames:
        atoms.positions += random.normal(scale=0.05, size=(len(atoms), 3))
    return StructureSetData(frames)


def build_campaign() -> ProcessBuilder:
    """Send out a walker for each composition."""
    walkers = {
        name: {
            'structure': StructureSetData([make_alloy(gold, REPEATS, np.random.default_rng(seed))]),
            'settings': {'temperature': [300, hottest], 'velocity_seed': seed, 'steps': STEPS},
        }
        for seed, (name, (gold, hottest)) in enumerate(WALKERS.items(), start=1)
    }
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer(COMPUTER),
        protocol='quick',
        initial_structures=make_crystals(),
        walkers=walkers,
        overrides=SETTINGS,
    )


campaign = submit_once('Cu-Au: campaign', build_campaign)
print(f'campaign {campaign.pk}: follow it with `aiida-oodal watch {campaign.pk}`')
