from pathlib import Path

import pytest
from aiida import orm

from aiida_oodal.data import AcePotentialData
from aiida_oodal.engine.errors import OodalError

FILES = Path(__file__).parent / 'ace-al'


def test_a_potential_comes_back_from_the_database():
    node = AcePotentialData(FILES / 'Al.yaml', FILES / 'Al.asi').store()
    loaded = orm.load_node(node.pk)
    assert (loaded.elements, loaded.cutoff, loaded.n_functions) == (['Al'], 6.0, 100)
    for name, file in ((loaded.BASIS, 'Al.yaml'), (loaded.ACTIVE_SET, 'Al.asi')):
        content = loaded.base.repository.get_object_content(name, mode='rb')
        assert content == (FILES / file).read_bytes()


def test_files_in_the_wrong_order_are_refused():
    with pytest.raises(OodalError, match=r'Al\.asi'):
        AcePotentialData(FILES / 'Al.asi', FILES / 'Al.yaml')
