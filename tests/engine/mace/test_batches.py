from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from aiida_oodal.engine.mace.batches import evaluate_graphs
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.latents_settings import LatentsSettings
from aiida_oodal.engine.mace.memory import Budget
from aiida_oodal.engine.mace.models import open_model

#: Runs a job with 128 MiB beyond what the process has when torch and a model are loaded.
UNDER_LIMIT = """
import json, pathlib, resource
from aiida_oodal.engine.mace.latents_job import run_job
from aiida_oodal.engine.mace.models import open_model
job = json.loads(pathlib.Path('job.json').read_text())
open_model(pathlib.Path(job['models']['w1']))
pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
limit = pages * resource.getpagesize() + 128 * 1024**2
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
run_job(job, pathlib.Path.cwd())
"""


def test_graphs_are_evaluated_side_by_side(alcu_models, alcu_crystals):
    model = open_model(alcu_models['w1'], precision='float64')
    graphs = [build_graph(atoms, model.info.cutoff) for atoms in alcu_crystals[:3]]
    together = evaluate_graphs(model, graphs, Budget(10**6, 10**6))
    for place, graph in enumerate(graphs):
        alone = model.evaluate(merge_graphs([graph]))
        np.testing.assert_allclose(together.latents[32 * place : 32 * (place + 1)], alone.latents, rtol=0, atol=1e-10)
        assert together.energies[place] == pytest.approx(alone.energies[0], abs=1e-9)


def test_what_does_not_fit_is_halved_and_cut_into_domains(tmp_path, alcu_models, alcu_crystals, run_latents):
    large = bulk('Al', cubic=True).repeat((16, 8, 8))
    large.rattle(0.05, seed=1)
    write(tmp_path / 'set.extxyz', [*alcu_crystals * 3, large, alcu_crystals[0]])
    folder = tmp_path / 'limited'
    folder.mkdir()
    models = {'w1': str(alcu_models['w1'])}
    # as if memory had no end: batches and structures as large as they come
    settings = LatentsSettings(edges_per_batch=10**9, max_edges=10**9, precision='float64').plain()
    job = {'structures': str(tmp_path / 'set.extxyz'), 'models': models, 'settings': settings}
    (folder / 'job.json').write_text(json.dumps(job))
    subprocess.run([sys.executable, '-c', UNDER_LIMIT], cwd=folder, check=True)

    results = json.loads((folder / 'results.json').read_text())
    assert (results['n_structures'], results['failures']) == (50, [])
    # the large one did not fit, and its edges are known
    n_edges = build_graph(large, 4.2).n_edges
    assert results['budget']['edges'] <= results['budget']['domain_edges'] <= n_edges // 2
    expected = run_latents(tmp_path / 'set.extxyz', models, precision='float64')
    for name in ('latents_w1', 'energies_w1', 'numbers', 'offsets'):
        mine, theirs = np.load(folder / f'{name}.npy'), np.load(expected / f'{name}.npy')
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-8 if name == 'energies_w1' else 1e-10)


def test_other_errors_are_not_taken_for_exhaustion(alcu_models, ethanol):
    model = open_model(alcu_models['w1'], device='cpu')
    # H, C and O have no place in this model: one_hot raises
    with pytest.raises(RuntimeError, match='non-negative'):
        evaluate_graphs(model, [build_graph(ethanol, 3.0)], Budget(100, 100))
