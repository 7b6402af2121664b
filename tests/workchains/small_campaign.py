"""A launch script like ``examples/launch_campaign.py``, small enough for a test."""

from aiida.orm import Dict
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.make_crystals import make_crystals
from aiida_oodal.calculations.reference_md import ReferenceMdCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import run_once, submit_once, wait_for
from aiida_oodal.workchains.campaign import CampaignWorkChain

CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
WALKERS = {
    'warm': {'temperature': [300, 900], 'velocity_seed': 1},
    'hot': {'temperature': [300, 1500], 'velocity_seed': 2},
}


def build_validation():
    builder = ReferenceMdCalculation.get_builder()
    builder.code = get_engine_code()
    builder.metadata.computer = find_computer('localhost')
    builder.structure = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(2)])
    builder.calculator = CALCULATOR
    builder.settings = {'temperatures': [600, 1200], 'samples_per_temperature': 3, 'steps': 60}
    return builder


def build_campaign():
    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)])
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer('localhost'),
        protocol='quick',
        initial_structures=run_once(make_crystals, settings=Dict({'count': 10})),
        validation=wait_for(validation).outputs.labels,
        walkers={name: {'structure': crystal, 'settings': {'steps': 200, **heat}} for name, heat in WALKERS.items()},
        overrides={
            'label': {'calculator': CALCULATOR},
            'train': {'number_of_functions': 30, 'max_functions': 40},
            'max_rounds': 8,
        },
    )


validation = submit_once('small: validation', build_validation)
campaign = submit_once('small: campaign', build_campaign)
