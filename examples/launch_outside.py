"""Launch a campaign whose labels somebody else computes: ``verdi run examples/launch_outside.py``.

Whenever it needs labels the campaign pauses, for weeks if need be, and ``aiida-oodal watch PK`` says so. Then

    aiida-oodal queue export to_label.extxyz      # send this to whoever computes
    aiida-oodal queue import labelled.extxyz      # what came back: energies and forces, and the campaign goes on

The first thing it asks for are the labels of some crystals of SiC. If you have labels already, give a file of them as
``LABELLED``: its frames have ``REF_energy`` [eV] and ``REF_forces`` [eV/angstrom].
"""

import numpy as np
from aiida.engine import ProcessBuilder
from aiida.plugins import DataFactory, WorkflowFactory
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import submit_once

COMPUTER = 'localhost'
# Who computes, with which program and settings: labels of different levels of theory are never mixed.
LEVEL = 'PBE, ORCA 6.0, def2-TZVP'
LABELLED = None
CRYSTAL = {'name': 'SiC', 'crystalstructure': 'zincblende', 'a': 4.36, 'cubic': True}
N_CRYSTALS = 20
REPEATS = 2
WALKERS = {'hot': {'temperature': [300, 3000], 'velocity_seed': 1, 'steps': 5000}}
# Each round asks for at most so many clusters, and goes on when this share of them is there.
SETTINGS = {'select': {'max_clusters': 8}, 'label': {'level': LEVEL}}
ENOUGH = {'share': 0.8}

CampaignWorkChain = WorkflowFactory('oodal.campaign')
StructureSetData = DataFactory('oodal.structures')


def make_initial() -> dict[str, StructureSetData]:
    """Return what the first potential will know: labels that are there, or strained crystals to be labelled."""
    if LABELLED is not None:
        return {'initial_labels': StructureSetData.from_file(LABELLED)}
    random = np.random.default_rng(0)
    frames = [bulk(**CRYSTAL).repeat(REPEATS) for _ in range(N_CRYSTALS)]
    for atoms in frames:
        atoms.set_cell(atoms.cell * (1 + random.uniform(-0.03, 0.03)), scale_atoms=True)
        atoms.positions += random.normal(scale=0.05, size=(len(atoms), 3))
    return {'initial_structures': StructureSetData(frames)}


def build_campaign() -> ProcessBuilder:
    """Walkers whose clusters are labelled elsewhere."""
    start = StructureSetData([bulk(**CRYSTAL).repeat(REPEATS + 1)])
    builder = CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer(COMPUTER),
        labeller='oodal.label.outside',
        walkers={name: {'structure': start, 'settings': settings} for name, settings in WALKERS.items()},
        overrides=SETTINGS,
        **make_initial(),
    )
    builder.label.enough = ENOUGH
    return builder


campaign = submit_once('SiC, labelled elsewhere: campaign', build_campaign)
print(f'campaign {campaign.pk}: `aiida-oodal watch {campaign.pk}` says when it waits for labels')
