import runpy
import warnings
from pathlib import Path

import pytest
from machine import needs

from aiida_oodal.data import MaceModelData
from aiida_oodal.engine.errors import OodalError

MODELS = Path(__file__).parent / 'mace_alcu'


def test_a_model_is_its_content_and_is_found_by_it():
    from aiida.orm import QueryBuilder

    first, second = (MaceModelData(MODELS / 'w1.model').store() for _ in range(2))
    other = MaceModelData(MODELS / 'w2.model').store()
    assert first.base.caching.compute_hash() == second.base.caching.compute_hash()
    assert first.base.caching.compute_hash() != other.base.caching.compute_hash()
    found = QueryBuilder().append(MaceModelData, filters={'attributes.sha256': other.sha256}).all(flat=True)
    # Other tests of the session use the same file.
    assert other.uuid in {node.uuid for node in found}
    assert not {first.uuid, second.uuid} & {node.uuid for node in found}


def test_making_a_node_runs_nothing_that_the_file_holds(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / 'ran',))

    path = tmp_path / 'bomb.model'
    path.write_bytes(pickle.dumps(Bomb()))
    MaceModelData(path).store()
    assert not (tmp_path / 'ran').exists()


def test_another_file_is_refused_by_name(tmp_path):
    path = tmp_path / 'w1.model'
    path.write_text('model: w1')
    with pytest.raises(OodalError, match=r'w1\.model begins with .* no model saved by torch; give the `.model` file'):
        MaceModelData(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OodalError, match=r'w9\.model cannot be read as a MACE model: No such file'):
        MaceModelData(tmp_path / 'w9.model')


@needs('mace')
def test_the_heads_of_a_model_can_be_queried(tmp_path):
    make = runpy.run_path(str(Path(__file__).parents[1] / 'engine' / 'conftest.py'))['save_untrained']
    make(tmp_path / 'two.model', '4x0e', 'ScaleShiftMACE', ('dft', 'xtb'))
    assert MaceModelData(tmp_path / 'two.model').heads == ('dft', 'xtb')
    assert MaceModelData(MODELS / 'w1.model').heads == ('Default',)


@needs('mace')
def test_a_compiled_model_is_refused_with_the_file_to_take(tmp_path):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / 'T1_w1_compiled.model')
    with pytest.raises(OodalError, match=r'T1_w1_compiled\.model is a compiled model.*without `_compiled` in its name'):
        MaceModelData(tmp_path / 'T1_w1_compiled.model')
