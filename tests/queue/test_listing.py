"""Which entries are meant: every filter, and beginnings of keys."""

from datetime import timedelta

import pytest
from aiida import orm
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.queue import LevelOfTheory, QueueStatus, claim, complete, enqueue, get_entries, prioritise
from aiida_oodal.queue.listing import Selection, count_levels, count_selected, find_keys, select_entries

LEVEL = LevelOfTheory('test.listing', {'of': 'this module'}, 'words of this module')


@pytest.fixture(scope='module')
def entries():
    """Return three entries: Al with gamma 3, AlCu with 30, Cu with none, of which the first is labelled."""
    nodes = []
    for number, (symbols, gamma) in enumerate((('Al4', 3.0), ('AlCu3', 30.0), ('Cu4', None))):
        atoms = bulk('Al', cubic=True)
        atoms.symbols = symbols
        atoms.positions[1, 0] += 0.2 + 0.01 * number
        node = orm.StructureData(ase=atoms)
        if gamma is not None:
            node.base.attributes.set('gamma_parent', gamma)
        nodes.append(node.store())
    made = enqueue(nodes, LEVEL, campaign='who listed')
    keys = [made[node.uuid].key for node in nodes]
    claim('somebody', keys=keys[:1])
    complete({keys[0]: 'a label'})
    return [get_entries(keys)[key] for key in keys]


@pytest.mark.parametrize(
    ('what', 'found'),
    [
        ({}, [0, 1, 2]),
        ({'statuses': (QueueStatus.PENDING_DFT,)}, [1, 2]),
        ({'statuses': (QueueStatus.PENDING_DFT, QueueStatus.LABELLED)}, [0, 1, 2]),
        ({'campaign': 'who listed'}, [0, 1, 2]),
        ({'campaign': 'nobody'}, []),
        ({'elements': ('Cu',)}, [1, 2]),
        ({'elements': ('Al', 'Cu')}, [1]),
        ({'gamma_above': 10.0}, [1]),
        ({'gamma_below': 10.0}, [0]),
        ({'gamma_above': 2.0, 'gamma_below': 40.0}, [0, 1]),
        ({'older_than': timedelta(hours=1)}, []),
        ({'newer_than': timedelta(hours=1)}, [0, 1, 2]),
        ({'labeller': 'test.listing'}, [0, 1, 2]),
        ({'labeller': 'test'}, []),
        ({'level': '', 'campaign': 'who listed'}, []),
    ],
)
def test_filters(entries, what, found):
    selection = Selection(**{'level': LEVEL.hash, **what})
    assert [entry.key for entry in select_entries(selection)] == [entries[number].key for number in found]
    assert sum(count_selected(selection).values()) == len(found)


def test_those_with_a_higher_priority_come_first(entries):
    keys = [entry.key for entry in entries]
    prioritise(keys[2:], 5)
    assert [entry.key for entry in select_entries(Selection(level=LEVEL.hash))] == [keys[2], keys[0], keys[1]]
    assert [entry.key for entry in select_entries(Selection(level=LEVEL.hash), limit=1)] == keys[2:]
    prioritise(keys[2:], 0)


def test_a_key_may_be_shortened_while_it_means_one_entry(entries):
    keys = [entry.key for entry in entries]
    assert find_keys([keys[0][:12], keys[1]]) == keys[:2]
    assert select_entries(Selection(keys=(keys[0][:12],)))[0].key == keys[0]
    with pytest.raises(OodalError, match="entries of the queue begin with 'q': give more letters"):
        find_keys(['q'])
    with pytest.raises(OodalError, match="no entry of the queue begins with 'zz'; `aiida-oodal queue list` shows"):
        find_keys(['zz'])
    with pytest.raises(OodalError, match="no entry of the queue begins with ''"):
        find_keys([''])


def test_levels_are_counted(entries):
    (level,) = [level for level in count_levels() if level.hash == LEVEL.hash]
    assert (level.labeller, level.text) == ('test.listing', 'words of this module')
    assert level.counts == {'LABELLED': 1, 'PENDING_DFT': 2}
