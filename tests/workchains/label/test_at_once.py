"""Two campaigns ask for the same atoms at the same time: they are paid once, and both get the labels."""

import time

import numpy as np
import pytest
from aiida import orm
from aiida.engine import submit
from ase.build import bulk

from aiida_oodal.queue import QueueStatus, enqueue, get_entries
from aiida_oodal.workchains.label.ase import AseLabelWorkChain

CALCULATOR = {'calculator': {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}}


def make_nodes(seeds):
    """Return nodes of the same atoms whenever it is called."""
    nodes = {}
    for seed in seeds:
        atoms = bulk('Cu', cubic=True)
        atoms.rattle(0.1, seed=seed)
        nodes[f'c{seed}'] = orm.StructureData(ase=atoms)
    return nodes


@pytest.mark.slow
@pytest.mark.daemon
def test_what_two_ask_for_is_paid_once_and_both_get_it(daemon_client, engine_code, localhost):
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)
    builders = []
    # each asks for eight, four of them the same, and each takes two at a time: they meet in the middle
    for name, seeds in (('one', range(700, 708)), ('two', range(704, 712))):
        campaign = orm.WorkChainNode(label=name).store()
        builder = AseLabelWorkChain.get_builder_from_protocol(
            code=engine_code, computer=localhost, overrides={**CALCULATOR, 'batch_size': 2}
        )
        builder.clusters = make_nodes(seeds)
        builder.campaign = orm.Str(campaign.uuid)
        builders.append(builder)
    labellers = [submit(builder) for builder in builders]
    end = time.monotonic() + 600
    while not all(node.is_terminated for node in labellers):
        assert time.monotonic() < end, [node.process_state for node in labellers]
        time.sleep(0.5)
    assert [node.exit_status for node in labellers] == [0, 0], [node.exit_message for node in labellers]
    paid = [
        key
        for node in labellers
        for job in node.called
        if isinstance(job, orm.CalcJobNode)
        for key in job.inputs.clusters
    ]
    assert len(paid) == len(set(paid)) == 12
    labels = [{atoms.info['queue_key']: atoms for atoms in node.outputs.labels} for node in labellers]
    assert [len(found) for found in labels] == [8, 8]
    shared = set(labels[0]) & set(labels[1])
    assert len(shared) == 4
    for key in shared:
        np.testing.assert_array_equal(labels[0][key].arrays['REF_forces'], labels[1][key].arrays['REF_forces'])
    campaigns = [node.inputs.campaign.value for node in labellers]
    for entry in get_entries(shared).values():
        assert entry.status is QueueStatus.LABELLED
        assert sorted(entry.campaigns) == sorted(campaigns)
        assert entry.attempts == 1
    # whoever asks later finds it
    builder = builders[0]
    late = enqueue(
        [node.store() for node in make_nodes(range(704, 708)).values()], AseLabelWorkChain.get_level(builder)
    )
    assert {entry.key for entry in late.values()} == shared
