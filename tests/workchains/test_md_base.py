import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, Int

from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.workchains.md_base import MdBaseWorkChain
from ase.build import bulk
from pathlib import Path

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'


@pytest.mark.slow
def test_a_run_out_of_walltime_goes_on_from_its_restart_file(engine_code, localhost):
    settings = {'temperature': 300, 'steps': 400, 'walltime_s': 4, 'sample_every': 10, 'ensemble': 'nve'}
    md = {
        'code': engine_code,
        'potential': AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi'),
        'structure': StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(4)]),
        'settings': Dict(settings),
        'metadata': {'computer': localhost},
    }
    outputs, node = run_get_node(MdBaseWorkChain, md=md, max_iterations=Int(100))
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['last_step'] == 400
    runs = [call for call in node.called if call.process_label == 'MdCalculation']
    assert len(runs) >= 2
    assert {call.exit_status for call in runs[:-1]} == {400}
    starts = [call.outputs.series.get_array('step')[0] for call in runs]
    ends = [call.outputs.results['last_step'] for call in runs]
    assert starts[1:] == ends[:-1]
