"""Campaigns with toys for labeller and trainer: all of the loop, and nothing that takes long."""

import pytest
from ase.build import bulk
from toys import ToyLabelWorkChain, ToyTrainWorkChain

from aiida_oodal.data import StructureSetData
from aiida_oodal.workchains.campaign import CampaignWorkChain


@pytest.fixture
def build_toy_campaign(entry_points, engine_code, localhost):
    """Return a function that makes the builder of a campaign; its walkers have a crystal, and settings of their own."""
    entry_points.add(ToyLabelWorkChain, 'aiida.workflows:oodal.label.toy')
    entry_points.add(ToyTrainWorkChain, 'aiida.workflows:oodal.train.toy')

    def make(walkers, overrides, a=4.05, **arguments):
        crystal = StructureSetData([bulk('Al', a=a, cubic=True).repeat(2)])
        return CampaignWorkChain.get_builder_from_protocol(
            code=engine_code,
            computer=localhost,
            labeller='oodal.label.toy',
            trainer='oodal.train.toy',
            protocol='quick',
            initial_structures=crystal,
            walkers={name: {'structure': crystal, **walker} for name, walker in walkers.items()},
            overrides={'label': {'stiffness': 0.5}, **overrides},
            **arguments,
        )

    return make
