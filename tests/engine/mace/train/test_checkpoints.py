import warnings

import pytest
from machine import require

from aiida_oodal.engine.mace.train.checkpoints import find_checkpoint, keep_checkpoint, restore_checkpoint

require('mace')

with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # within mace-torch and e3nn
    import torch
    from mace.tools.checkpoint import CheckpointIO


@pytest.fixture
def saved(tmp_path):
    """Return mace-torch's own writer of checkpoints in the folder of a job."""
    (tmp_path / 'mace').mkdir()
    writer = CheckpointIO(str(tmp_path / 'mace' / 'checkpoints'), 'mace_run-1')
    return lambda epoch: writer.save({'model': {'weight': torch.full((1000,), float(epoch))}}, epoch)


def weight(folder, epoch):
    path = folder / 'mace' / 'checkpoints' / f'mace_run-1_epoch-{epoch}.pt'
    return float(torch.load(path, weights_only=False)['model']['weight'][0])


def test_there_may_be_none(tmp_path):
    assert find_checkpoint(tmp_path) is None
    keep_checkpoint(tmp_path)
    assert restore_checkpoint(tmp_path) is None


def test_the_newest_is_found_and_restored(tmp_path, saved):
    for epoch in (3, 12):
        saved(epoch)
        keep_checkpoint(tmp_path)
    assert find_checkpoint(tmp_path) == restore_checkpoint(tmp_path) == 12
    assert [path.name for path in (tmp_path / 'mace' / 'kept_checkpoint').iterdir()] == ['mace_run-1_epoch-12.pt']


@pytest.mark.parametrize('share', [0.0, 0.5])
def test_a_job_killed_while_it_writes_goes_on_from_the_one_before(tmp_path, saved, share):
    saved(3)
    keep_checkpoint(tmp_path)
    saved(12)
    newest = tmp_path / 'mace' / 'checkpoints' / 'mace_run-1_epoch-12.pt'
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    assert restore_checkpoint(tmp_path) == 3
    assert weight(tmp_path, 3) == 3.0
    assert not newest.exists()


def test_a_job_killed_between_removal_and_writing_goes_on_too(tmp_path, saved):
    saved(3)
    keep_checkpoint(tmp_path)
    (tmp_path / 'mace' / 'checkpoints' / 'mace_run-1_epoch-3.pt').unlink()
    assert find_checkpoint(tmp_path) is None
    assert restore_checkpoint(tmp_path) == find_checkpoint(tmp_path) == 3
    assert weight(tmp_path, 3) == 3.0
