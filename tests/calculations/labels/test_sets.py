"""Sets of labels become one, whatever else stands beside the labels."""

import numpy as np
import pytest
from aiida import orm
from ase.build import bulk

from aiida_oodal.calculations.explained import ERROR_INPUT
from aiida_oodal.calculations.labels import merge_labels, pack_labels, unmerge, unpack
from aiida_oodal.calculations.labels.sets import hold_out
from aiida_oodal.data import StructureSetData


def labelled(a, **arrays):
    atoms = bulk('Al', a=a, cubic=True)
    atoms.info['REF_energy'] = -a
    atoms.arrays['REF_forces'] = np.full((4, 3), a)
    atoms.arrays.update(arrays)
    return atoms


@pytest.fixture
def crystals(aiida_profile):
    return StructureSetData([labelled(4.0), labelled(4.1)]).store()


@pytest.fixture
def clusters(aiida_profile):
    """Return labelled clusters, which have arrays that crystals lack; that of 4.3 angstrom is a queue entry."""
    frames = [labelled(a, parent_index=np.arange(4) + 10, force_mask=np.array([1.0, 1, 0, 0])) for a in (4.2, 4.3)]
    frames[1].info['queue_key'] = 'q43'
    return StructureSetData(frames).store()


def test_crystals_and_clusters_become_one_set(crystals, clusters):
    merged, node = merge_labels.run_get_node(start=crystals, round_1=clusters)
    assert node.is_finished_ok
    frames = list(merged)
    # in the order of the keys
    assert [atoms.info['REF_energy'] for atoms in frames] == [-4.2, -4.3, -4.0, -4.1]
    assert [atoms.arrays['REF_forces'][0, 0] for atoms in frames] == [4.2, 4.3, 4.0, 4.1]
    assert ['parent_index' in atoms.arrays for atoms in frames] == [True, True, False, False]
    assert ['force_mask' in atoms.arrays for atoms in frames] == [True, True, False, False]
    assert frames[0].arrays['parent_index'].tolist() == [10, 11, 12, 13]


def test_an_entry_of_the_queue_that_two_campaigns_have_is_taken_once(crystals, clusters):
    merged = merge_labels(first=clusters, second=StructureSetData(list(clusters)), third=crystals)
    assert [atoms.info.get('queue_key') for atoms in merged].count('q43') == 1
    assert merged.n_structures == 2 + 1 + 2


def test_nothing_is_refused(aiida_profile):
    _, node = merge_labels.run_get_node()
    assert node.exit_status == ERROR_INPUT
    assert 'give at least one' in node.exit_message


def test_what_was_merged_or_split_leads_back_to_its_parts(crystals, clusters):
    assert unmerge(crystals) == [crystals]
    merged = merge_labels(a=crystals, b=clusters)
    assert unmerge(merged) == [crystals, clusters]
    parts = hold_out(fraction=orm.Float(0.5), set_m=merged)
    assert unmerge(parts['training']) == unmerge(parts['heldout']) == [crystals, clusters]


def test_a_pack_is_held_out_of_as_its_sets_are_and_leads_back_to_them(crystals, clusters):
    sets = {'initial_start': crystals, 'round_1': clusters}
    pack = pack_labels(**sets)
    assert unpack('pack', pack) == sets
    assert unpack('start', crystals) == {'start': crystals}
    assert unmerge(pack) == [crystals, clusters]
    assert {name: len(part) for name, part in pack.get_set().split('labelled_set', 'pack').items()} == {
        'initial_start': 2,
        'round_1': 2,
    }
    assert all('labelled_set' not in atoms.info for atoms in [*crystals, *clusters])
    one, other = (hold_out(fraction=orm.Float(0.5), **each) for each in (sets, {'pack': pack}))
    for name in ('training', 'heldout'):
        assert one[name].n_structures == 2
        assert one[name].base.caching.compute_hash() == other[name].base.caching.compute_hash()
