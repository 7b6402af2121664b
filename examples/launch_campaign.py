"""Launch a self-healing campaign on aluminium: ``verdi run examples/launch_campaign.py``.

A linear ACE potential that knows cold, slightly strained fcc Al only is sent through the melting point. Where it no
longer knows what it does, MD halts, the worst atoms are cut out, labelled and learned, and MD is tried again.

Run it twice and it finds the campaign of the first time. Follow it with ``aiida-oodal watch <PK>``.
"""

from aiida.engine import ProcessBuilder
from aiida.orm import Dict, load_computer
from aiida.plugins import CalculationFactory, DataFactory, WorkflowFactory
from ase.build import bulk

from aiida_oodal.calculations.engine_code import get_engine_code
from aiida_oodal.calculations.job_options import get_job_options
from aiida_oodal.workchains.launch import submit_once, wait_for

COMPUTER = 'localhost'
# What labels structures: a name that ASE knows, and its parameters. EMT takes milliseconds.
REFERENCE = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
# What the first potential knows: thirty crystals of 32 atoms, strained by up to 1.5 %, displaced by 0.02 to 0.06 Å.
CRYSTALS = {'symbol': 'Al', 'crystal': 'fcc', 'lattice_constant': 4.0, 'rattle': [0.02, 0.06]}
# Each walker heats 256 atoms at zero pressure within 6 ps; Al melts at 933 K.
WALKERS = {
    'warm': {'temperature': [300, 1500], 'velocity_seed': 11},
    'hot': {'temperature': [300, 2400], 'velocity_seed': 12},
}

CampaignWorkChain = WorkflowFactory('oodal.campaign')
ReferenceMdCalculation = CalculationFactory('oodal.reference_md')
StructureSetData = DataFactory('oodal.structures')
make_crystals = CalculationFactory('oodal.make_crystals')


def build_validation() -> ProcessBuilder:
    """Hot snapshots from MD under the reference itself: no potential is trained on them, all are judged by them."""
    builder = ReferenceMdCalculation.get_builder()
    builder.code = get_engine_code()
    builder.metadata.computer = load_computer(COMPUTER)
    builder.metadata.options.update(get_job_options(builder.metadata.computer, 'reference_md'))
    builder.structure = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)])
    builder.reference = REFERENCE
    builder.settings = {'temperatures': [600, 1200, 1800, 2400], 'samples_per_temperature': 4, 'steps': 160}
    return builder


def build_campaign() -> ProcessBuilder:
    """Two walkers, and a first potential that has seen cold crystals only."""
    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(4)])
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=load_computer(COMPUTER),
        protocol='quick',
        initial_structures=make_crystals(Dict(CRYSTALS)),
        validation=wait_for(validation).outputs.labels,
        walkers={name: {'structure': crystal, 'settings': {'steps': 2000, **heat}} for name, heat in WALKERS.items()},
        overrides={'reference': REFERENCE},
    )


validation = submit_once('aluminium: validation set', build_validation)
campaign = submit_once('aluminium: campaign', build_campaign)
print(f'campaign {campaign.pk}: follow it with `aiida-oodal watch {campaign.pk}`')
