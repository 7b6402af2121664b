from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.io import write

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.stream import StructureStream
from aiida_oodal.engine.mace.latents_files import finish_interrupted
from aiida_oodal.engine.mace.latents_job import run_job
from aiida_oodal.engine.mace.latents_settings import LatentsSettings
from aiida_oodal.engine.ood.ensemble import EnsembleLatents


@pytest.mark.parametrize('lacking', ['structures', 'models', 'settings'])
def test_a_job_that_lacks_something_says_what_it_needs(lacking, tmp_path):
    job = {'structures': 'set.npz', 'models': {'w1': 'w1.model'}, 'settings': LatentsSettings().plain()}
    del job[lacking]
    with pytest.raises(OodalError, match=f"the latents job lacks '{lacking}'"):
        run_job(job, tmp_path)


def test_settings_of_another_version_are_refused(tmp_path):
    job = {'structures': 'set.npz', 'models': {'w1': 'w1.model'}, 'settings': {'layers': 'all', 'charges': True}}
    with pytest.raises(OodalError, match='latents settings: this engine does not know charges'):
        run_job(job, tmp_path)


def test_kill_minus_9_in_mid_job_keeps_what_is_finished(tmp_path, alcu_crystals, alcu_models, run_latents):
    n_structures = 16 * 400
    write(tmp_path / 'set.extxyz', alcu_crystals * 400)
    folder = tmp_path / 'killed'
    folder.mkdir()
    models = {label: str(alcu_models[label]) for label in ('w1', 'w2')}
    settings = LatentsSettings(batch_size=3).plain()
    job = {'structures': str(tmp_path / 'set.extxyz'), 'models': models, 'settings': settings, 'start': 2}
    (folder / 'job.json').write_text(json.dumps(job))
    code = 'import json, pathlib; from aiida_oodal.engine.mace.latents_job import run_job; '
    code += 'run_job(json.loads(pathlib.Path("job.json").read_text()), pathlib.Path.cwd())'
    process = subprocess.Popen([sys.executable, '-c', code], cwd=folder)
    try:
        index = folder / 'structure_index.npy'
        end = time.monotonic() + 300
        # 128 bytes of header, 8 for each structure
        while not index.exists() or index.stat().st_size < 128 + 8 * 9:
            assert process.poll() is None, 'the job ended before it could be killed'
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    results = finish_interrupted(folder)

    done = results['n_structures']
    assert 9 <= done < n_structures - 2
    assert results['next_structure'] == done + 2
    assert results['n_atoms'] == 32 * done
    ensemble = EnsembleLatents.open(folder)
    assert ensemble.structure_index.tolist() == list(range(2, done + 2))
    # what is there is true, the last structure too
    last = done + 1
    alone = EnsembleLatents.open(run_latents(tmp_path / 'set.extxyz', models, start=last, stop=last + 1))
    for k in (0, 1):
        rows = ensemble.latents[k][32 * (done - 1) : 32 * done]
        np.testing.assert_allclose(rows, alone.latents[k][0:32], rtol=0, atol=1e-6)
    # and the job that goes on begins where this one stopped
    assert next(iter(StructureStream(tmp_path / 'set.extxyz', start=results['next_structure']))).index == last + 1
