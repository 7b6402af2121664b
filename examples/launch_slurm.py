"""Launch a campaign whose stages run in different places of a cluster: ``verdi run examples/launch_slurm.py``.

MD and the training of an ensemble of MACE models run on the partition ``a100`` of a Slurm computer, each with a
walltime of its own; labels and the choice of clusters, which need no GPU, run on another computer. How to make the
computers is in docs/slurm.md.

Run it twice and it finds the campaign of the first time. Follow it with ``aiida-oodal watch <PK>``.
"""

from aiida.engine import ProcessBuilder
from aiida.orm import Dict
from aiida.plugins import CalculationFactory, DataFactory, WorkflowFactory
from ase import Atoms
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import run_once, submit_once

# Where a stage runs that is not named in STAGES, or has no computer there.
COMPUTER = 'a100-slurm'
# Options are those of AiiDA's jobs; they win over what the computer was set up with. A labeller that needs a code of
# its own has it here, too: 'label': {'code': load_code('pw.x@cluster'), ...}
STAGES = {
    'md': {'options': {'max_wallclock_seconds': 6 * 3600}},
    'train': {'options': {'max_wallclock_seconds': 12 * 3600}},
    'label': {'computer': 'localhost', 'options': {'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 2}}},
    'select': {'computer': 'localhost'},
}
TRAINER = 'oodal.train.mace'
PROTOCOL = 'balanced'
CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
SETTINGS = {'label': {'calculator': CALCULATOR}, 'budget': {'hours': 14 * 24}}
CRYSTALS = {'symbol': 'Al', 'crystal': 'fcc', 'lattice_constant': 4.0, 'count': 60, 'rattle': [0.02, 0.08]}
WALKERS = {
    'warm': {'temperature': [300, 1200], 'velocity_seed': 1, 'steps': 20000},
    'hot': {'temperature': [300, 1800], 'velocity_seed': 2, 'steps': 20000},
}
REPEATS = 5

CampaignWorkChain = WorkflowFactory('oodal.campaign')
StructureSetData = DataFactory('oodal.structures')
make_crystals = CalculationFactory('oodal.make_crystals')


def build_campaign() -> ProcessBuilder:
    """Two walkers; each stage in its place."""
    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(REPEATS)])
    crystals = run_once(make_crystals, settings=Dict(CRYSTALS))
    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer(COMPUTER),
        protocol=PROTOCOL,
        trainer=TRAINER,
        initial_structures=StructureSetData([Atoms('Al', cell=[12.0, 12.0, 12.0]), *crystals]),
        walkers={name: {'structure': crystal, 'settings': settings} for name, settings in WALKERS.items()},
        overrides=SETTINGS,
        stages={
            name: {**place, 'computer': find_computer(place.get('computer', COMPUTER))}
            for name, place in STAGES.items()
        },
    )


campaign = submit_once('aluminium on Slurm: campaign', build_campaign)
print(f'campaign {campaign.pk}: follow it with `aiida-oodal watch {campaign.pk}`')
