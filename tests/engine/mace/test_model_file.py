"""What the host may know of a model without opening it."""

import pickle
import warnings
from pathlib import Path

import pytest

from aiida_oodal.engine.mace.model_file import check_head, find_heads, is_compiled

MODELS = Path(__file__).parents[2] / 'data' / 'mace_alcu'


@pytest.mark.parametrize('heads', [('Default',), ('dft', 'xtb'), ('Default', 'pt_head', 'mace')])
def test_heads_are_read_without_unpickling(untrained, heads, monkeypatch):
    path = untrained('4x0e', heads=heads)
    monkeypatch.setattr(pickle, 'Unpickler', None)
    monkeypatch.setattr(pickle, 'loads', None)
    assert find_heads(path) == heads


def test_files_that_do_not_say_are_no_obstacle(tmp_path):
    assert find_heads(MODELS / 'w1.model') == ('Default',)
    (tmp_path / 'old.model').write_bytes(pickle.dumps({'heads': ['a']}))
    assert find_heads(tmp_path / 'old.model') is None
    assert not is_compiled(tmp_path / 'old.model')
    assert not is_compiled(MODELS / 'w1.model')


def test_a_compiled_model_is_told_apart(tmp_path):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / 'w1_compiled.model')
    assert is_compiled(tmp_path / 'w1_compiled.model')


def test_a_head_must_be_asked_for_where_there_are_several():
    assert check_head(None, 'dft', 'w1') is None
    assert check_head(('Default',), None, 'w1') is None
    assert check_head(('pt', 'Default'), None, 'w1') is None
    assert check_head(('dft', 'xtb'), 'XTB', 'w1') is None
    problem = check_head(('dft', 'xtb'), None, 'w1')
    assert problem.startswith('w1 has the heads dft, xtb, and none of them is asked for: set `head`')
    assert '`latents: {head: NAME}` in a file of targets' in problem
    assert "head = 'mp2' is none of them" in check_head(('dft', 'xtb'), 'mp2', 'w1')
