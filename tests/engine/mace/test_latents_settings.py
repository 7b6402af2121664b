from __future__ import annotations

import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.latents_settings import LatentsSettings


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'layers': 'second'}, r"layers = 'second': .*'all', 'last' or 'first'"),
        ({'precision': 'float16'}, 'precision'),
        ({'batch_size': 0}, 'batch_size = 0'),
        ({'batchsize': 1}, "'batchsize' is not a setting; did you mean 'batch_size'"),
        ({'batch_size': 1, 'edges_per_batch': 5000}, 'edges_per_batch = 5000 and batch_size = 1 exclude each other'),
    ],
)
def test_wrong_settings_are_refused_in_plain_words(values, message):
    with pytest.raises(OodalError, match=message):
        LatentsSettings.load(values)
