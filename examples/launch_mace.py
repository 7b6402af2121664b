"""Launch a self-healing campaign with an ensemble of MACE models: ``verdi run examples/launch_mace.py``.

Four small models, trained from four seeds on cold fcc Al, drive MD through the melting point. Where they disagree more
than on what they know, MD halts, the worst atoms are cut out, labelled and learned by four new models, and MD is tried
again. On a CPU with two cores a round takes some minutes; on an ``a100`` computer give ``COMPUTER`` its name and the
protocol ``balanced``.

Run it twice and it finds the campaign of the first time. Follow it with ``aiida-oodal watch <PK>``.
"""

from aiida.engine import ProcessBuilder
from aiida.orm import Dict
from aiida.plugins import CalculationFactory, DataFactory, WorkflowFactory
from ase import Atoms
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import run_once, submit_once, wait_for

COMPUTER = 'localhost'
# What labels structures: a name that ASE knows, and its parameters. EMT takes milliseconds.
CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
# What the first models know: thirty crystals of 32 atoms, and one atom alone, which says what an atom costs.
CRYSTALS = {'symbol': 'Al', 'crystal': 'fcc', 'lattice_constant': 4.0, 'rattle': [0.02, 0.06]}
# Each walker heats 256 atoms at zero pressure within 4 ps; Al melts at 933 K.
WALKERS = {
    'warm': {'temperature': [300, 1200], 'velocity_seed': 11, 'steps': 2000},
    'hot': {'temperature': [300, 1500], 'velocity_seed': 12, 'steps': 2000},
}
REPEATS = 4
VALIDATION = {'temperatures': [600, 1200, 1800, 2400], 'samples_per_temperature': 4, 'steps': 160}
SETTINGS = {
    'label': {'calculator': CALCULATOR},
    'train': {'settings': {'updates': 800, 'device': 'cpu', 'overrides': {'r_max': 4.2}}},
    'md': {'timestep_ps': 0.002},
    # Around the least certain atoms of a melt at 1500 K such small models are wrong by 0.10 to 0.15 eV/Å.
    'audit': {'tolerance': 0.2},
}

CampaignWorkChain = WorkflowFactory('oodal.campaign')
ReferenceMdCalculation = CalculationFactory('oodal.reference_md')
StructureSetData = DataFactory('oodal.structures')
make_crystals = CalculationFactory('oodal.make_crystals')


def build_validation() -> ProcessBuilder:
    """Hot snapshots from MD under the labeller itself: no model is trained on them, all are judged by them."""
    builder = ReferenceMdCalculation.get_builder()
    builder.code = get_engine_code()
    builder.metadata.computer = find_computer(COMPUTER)
    builder.metadata.options.update(get_job_options(builder.metadata.computer, 'reference_md'))
    builder.structure = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)])
    builder.calculator = CALCULATOR
    builder.settings = VALIDATION
    return builder


def build_campaign() -> ProcessBuilder:
    """Two walkers, and an ensemble that has seen cold crystals only."""
    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(REPEATS)])
    known = run_once(make_crystals, settings=Dict(CRYSTALS))
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer(COMPUTER),
        protocol='quick',
        trainer='oodal.train.mace',
        initial_structures=StructureSetData([Atoms('Al', cell=[12.0, 12.0, 12.0]), *known]),
        validation=wait_for(validation).outputs.labels,
        walkers={name: {'structure': crystal, 'settings': settings} for name, settings in WALKERS.items()},
        overrides=SETTINGS,
    )


validation = submit_once('aluminium: validation set', build_validation)
campaign = submit_once('aluminium: MACE campaign', build_campaign)
print(f'campaign {campaign.pk}: follow it with `aiida-oodal watch {campaign.pk}`')
