"""Launch a self-healing campaign on aluminium: ``verdi run examples/launch_campaign.py``.

A linear ACE potential that knows cold, slightly strained fcc Al only is sent through the melting point. Where it no
longer knows what it does, MD halts, the worst atoms are cut out, labelled and learned, and MD is tried again.

Run it twice and it finds the campaign of the first time; run it changed and it says what differs. Follow the campaign
with ``aiida-oodal watch <PK>``.
"""

from aiida.engine import ProcessBuilder
from aiida.orm import Dict
from aiida.plugins import CalculationFactory, DataFactory, WorkflowFactory
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import run_once, submit_once, wait_for

COMPUTER = 'localhost'
# What labels structures: a name that ASE knows, and its parameters. EMT takes milliseconds.
CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
# What the first potential knows: thirty crystals of 32 atoms, strained by up to 1.5 %, displaced by 0.02 to 0.06 Å.
CRYSTALS = {'symbol': 'Al', 'crystal': 'fcc', 'lattice_constant': 4.0, 'rattle': [0.02, 0.06]}
# Each walker heats 256 atoms at zero pressure within 6 ps; Al melts at 933 K.
WALKERS = {
    'warm': {'temperature': [300, 1500], 'velocity_seed': 11, 'steps': 2000},
    'hot': {'temperature': [300, 2000], 'velocity_seed': 12, 'steps': 2000},
}
REPEATS = 4
VALIDATION = {'temperatures': [600, 1200, 1800, 2400], 'samples_per_temperature': 4, 'steps': 160}
SETTINGS = {
    'label': {'calculator': CALCULATOR},
    # Aluminium needs no more functions than the protocol begins with.
    'train': {'max_functions': 60},
    # EMT labels all 256 atoms of a last frame at once; DFT would get clusters of it.
    # Hot aluminium is thin: under EMT it has 0.7 times the density of the crystal at 2000 K.
    'audit': {'whole_atoms': 300, 'least_density': 0.5},
}

CampaignWorkChain = WorkflowFactory('oodal.campaign')
ReferenceMdCalculation = CalculationFactory('oodal.reference_md')
StructureSetData = DataFactory('oodal.structures')
make_crystals = CalculationFactory('oodal.make_crystals')


def build_validation() -> ProcessBuilder:
    """Hot snapshots from MD under the labeller itself: no potential is trained on them, all are judged by them."""
    builder = ReferenceMdCalculation.get_builder()
    builder.code = get_engine_code()
    builder.metadata.computer = find_computer(COMPUTER)
    cores = {'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 2}}  # two temperatures at a time
    builder.metadata.options.update(get_job_options(builder.metadata.computer, 'reference_md', cores))
    builder.structure = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)])
    builder.calculator = CALCULATOR
    builder.settings = VALIDATION
    return builder


def build_campaign() -> ProcessBuilder:
    """Two walkers, and a first potential that has seen cold crystals only."""
    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(REPEATS)])
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer(COMPUTER),
        protocol='quick',
        initial_structures=run_once(make_crystals, settings=Dict(CRYSTALS)),
        validation=wait_for(validation).outputs.labels,
        walkers={name: {'structure': crystal, 'settings': settings} for name, settings in WALKERS.items()},
        overrides=SETTINGS,
    )


validation = submit_once('aluminium: validation set', build_validation)
campaign = submit_once('aluminium: campaign', build_campaign)
print(f'campaign {campaign.pk}: follow it with `aiida-oodal watch {campaign.pk}`')
