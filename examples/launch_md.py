"""Run one MD walker: ``verdi run examples/launch_md.py``.

MD with the newest ACE potential of this profile, such as the quickstart's. Where γ of an atom passes ``GAMMA_BREAK``
the run halts, and clusters are cut around the atoms that the potential knows least.

Run it twice and it finds the walk of the first time; a potential that is newer begins another one.
"""

from aiida.engine import ProcessBuilder
from aiida.orm import QueryBuilder
from aiida.plugins import DataFactory, WorkflowFactory
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import submit_once

COMPUTER = 'localhost'
# Any structure of elements that the potential knows; one of a file by `ase.io.read`.
STRUCTURE = bulk('Al', cubic=True, a=4.05).repeat(3)
# Times in ps, temperatures in K (a pair is a ramp), pressures in bar: docs/md.md.
SETTINGS = {'ensemble': 'npt', 'temperature': [300, 1200], 'steps': 1000, 'timestep_ps': 0.003, 'gamma_every': 10}
GAMMA_BREAK = 5.0

AcePotentialData = DataFactory('oodal.ace')
ExploreWorkChain = WorkflowFactory('oodal.explore')
StructureSetData = DataFactory('oodal.structures')

newest = QueryBuilder().append(AcePotentialData, tag='potential').order_by({'potential': {'ctime': 'desc'}})
potential = newest.first(flat=True)
if potential is None:
    raise SystemExit('There is no ACE potential in this profile: run examples/launch_campaign.py first')


def build_walk() -> ProcessBuilder:
    """MD, and the job that cuts out clusters if it halts."""
    builder = ExploreWorkChain.get_builder()
    builder.thresholds = {'gamma_break': GAMMA_BREAK}
    builder.md.potential = potential
    builder.md.structure = StructureSetData([STRUCTURE])
    builder.md.settings = SETTINGS
    for stage, job in ((builder.md, 'md'), (builder.carve, 'carve_clusters')):
        stage.code = get_engine_code()
        stage.metadata.computer = find_computer(COMPUTER)
        stage.metadata.options.update(get_job_options(stage.metadata.computer, job))
    return builder


walk = submit_once(f'one walker under potential {potential.pk}', build_walk)
print(f'walker {walk.pk}: `verdi process report {walk.pk}` and `verdi process show {walk.pk}` tell what became of it')
