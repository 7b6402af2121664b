"""Real jobs, run in the test process: real LAMMPS, real pyace."""

from pathlib import Path

import pytest
from ase.build import bulk

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'


@pytest.fixture(scope='session')
def potential(aiida_profile):
    """Return a linear ACE potential for Al that knows crystals up to about 1000 K."""
    from aiida_oodal.data import AcePotentialData

    return AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi').store()


@pytest.fixture
def crystal():
    from aiida_oodal.data import StructureSetData

    return StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(3)])


@pytest.fixture
def md_inputs(engine_code, localhost, potential, crystal):
    """Return a factory for the inputs of an MD run; the arguments are settings."""
    from aiida.orm import Dict

    def factory(**settings):
        return {
            'code': engine_code,
            'potential': potential,
            'structure': crystal,
            'settings': Dict({'temperature': 300, 'timestep_ps': 0.002, 'steps': 40, **settings}),
            'metadata': {'computer': localhost},
        }

    return factory
