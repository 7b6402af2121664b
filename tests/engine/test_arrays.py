"""Arrays with a header: versions, folders, damage."""

import numpy as np
import pytest

from aiida_oodal.engine.arrays import read_header, take_prefix, write_folder, write_header
from aiida_oodal.engine.errors import OodalError


def test_a_header_keeps_its_values_and_tells_its_format():
    arrays = {'header': write_header(3, {'labels': ('w1', 'w2')})}
    assert read_header(arrays, 'the thing', 3) == {'labels': ['w1', 'w2']}
    with pytest.raises(OodalError, match=r'the thing was stored in format 3 .*reads formats up to 2: upgrade it'):
        read_header(arrays, 'the thing', 2)
    assert read_header({'header': np.frombuffer(b'{"labels": []}', dtype=np.uint8)}, 'x', 1) == {'labels': []}
    for broken in ({}, {'header': np.zeros(3)}, {'header': np.frombuffer(b'[1]', dtype=np.uint8)}):
        with pytest.raises(OodalError, match='the thing cannot be read: its header is missing or damaged'):
            read_header(broken, 'the thing', 2)


def test_folders_hold_what_was_written(tmp_path):
    arrays = {'header': write_header(1, {}), 'part__values': np.arange(6.0).reshape(2, 3), 'part__n': np.array(3)}
    write_folder(tmp_path / 'new' / 'folder', arrays)
    again = {path.stem: np.load(path) for path in (tmp_path / 'new' / 'folder').iterdir()}
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    assert take_prefix(again, 'part__').keys() == {'values', 'n'}
