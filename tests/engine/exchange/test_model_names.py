"""Which file is which member of an ensemble."""

import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.model_names import label_models


def test_seeds_in_the_names_are_the_labels():
    files = ['models/T1_w1.model', 'models/T1_w2.model', 'models/T1_w10.model']
    assert label_models(files)[0] == dict(zip(('w1', 'w2', 'w10'), files, strict=True))
    assert label_models(['b.model', 'a.model'])[0] == {'w1': 'b.model', 'w2': 'a.model'}
    assert label_models(['low1.model', 'low2.model'])[0] == {'w1': 'low1.model', 'w2': 'low2.model'}


def test_compiled_copies_are_passed_over():
    labelled, notes = label_models(['T1_w1.model', 'T1_w1_compiled.model', 'T1_w2.model', 'T1_w2_compiled.model'])
    assert labelled == {'w1': 'T1_w1.model', 'w2': 'T1_w2.model'}
    assert notes[0] == 'T1_w1_compiled.model is passed over: a compiled copy'
    # Where there is nothing else, the file itself says what is wrong with it.
    assert label_models(['T1_w1_compiled.model'])[0] == {'w1': 'T1_w1_compiled.model'}


@pytest.mark.parametrize('stage', ['_stagetwo', '_swa', '_run-2'])
def test_stages_of_one_training_are_no_members(stage):
    files = ['T1_w1.model', f'T1_w1{stage}.model', 'T1_w2.model']
    with pytest.raises(OodalError, match=rf'2 files are of one seed, w1: T1_w1.model, T1_w1{stage}.model.*models: '):
        label_models(files)


def test_names_with_and_without_a_seed_do_not_go_together():
    with pytest.raises(OodalError, match=r'best\.model has no seed in its name .* T1_w1\.model has one'):
        label_models(['T1_w1.model', 'best.model'])
