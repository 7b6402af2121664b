"""Nodes of equal content are found whatever way they came."""

import numpy as np
import pytest
from aiida.orm import ArrayData, Dict
from aiida.tools import delete_nodes
from aiida.tools.archive import create_archive, import_archive
from ase.build import bulk

from aiida_oodal.data import StructureSetData
from aiida_oodal.data.content import find_equal, hash_content, store_once


def make(a=4.321, **info):
    atoms = bulk('Al', cubic=True, a=a)
    atoms.info.update(info)
    return StructureSetData([atoms, bulk('Cu', a=3.6)])


def test_the_hash_is_the_same_before_and_after_a_node_is_stored():
    for node in (make(), Dict({'a': (1, 2.0, np.float64(1 / 3)), 'b': {'c': None}}), ArrayData(np.arange(3) / 7)):
        before = hash_content(node)
        assert hash_content(node.store()) == before == node.base.caching.get_hash()


def test_what_is_there_is_not_stored_again():
    node = store_once(make(a=4.4))
    assert node.is_stored
    assert store_once(node) is node
    assert store_once(make(a=4.4)).uuid == node.uuid
    assert store_once(make(a=4.5)).uuid != node.uuid


@pytest.mark.filterwarnings('ignore:Object of type <DbGroup> not in session')  # AiiDA's import
@pytest.mark.parametrize('times', [1, 2])
def test_what_came_in_an_archive_is_found(tmp_path, times):
    node = make(a=4.6, name=f'archived {times}').store()
    for _ in range(times):
        create_archive([node], filename=tmp_path / 'a.aiida', overwrite=True)
        delete_nodes([node.pk], dry_run=False)
        import_archive(tmp_path / 'a.aiida')
        found = find_equal(make(a=4.6, name=f'archived {times}'))
        assert found.uuid == node.uuid
        node = found
    assert find_equal(make(a=4.6, name='never stored')) is None
