from pathlib import Path

import numpy as np
import pytest
from aiida.orm import Dict, Float
from ase import Atoms
from ase.io import read

from aiida_oodal.calculations.extract_clusters import extract_clusters
from aiida_oodal.calculations.select_clusters import select_clusters
from aiida_oodal.data import StructureSetData

FRAME = Path(__file__).parents[1] / 'data' / 'ace-al' / 'native_snapshot' / 'snap.dump'


@pytest.fixture(scope='module')
def snapshots(aiida_profile):
    """Return 500 hot atoms with the gamma that LAMMPS with ML-PACE gave them."""
    frame = read(FRAME, format='lammps-dump-text')
    atoms = Atoms('Al500', positions=frame.positions, cell=frame.cell, pbc=True, info={'step': 300})
    atoms.arrays['gamma'] = frame.arrays['f_pg'].ravel()
    return StructureSetData([atoms]).store()


@pytest.fixture(scope='module')
def settings(snapshots):
    gamma = snapshots.get_atoms(0).arrays['gamma']
    return {'gamma_select': float(np.quantile(gamma, 0.9)), 'gamma_ceiling': float(gamma.max() + 1)}


def test_the_worst_atoms_are_cut_out_with_their_gamma(snapshots, potential, settings):
    results = extract_clusters(snapshots, Dict({**settings, 'centres_per_snapshot': 2}), potential, Float(5.0))
    gamma = snapshots.get_atoms(0).arrays['gamma']
    clusters = results['clusters']
    assert sorted(clusters) == ['c0', 'c1']
    first = clusters['c0'].base.attributes
    assert first.get('center_parent_index') == int(gamma.argmax())
    assert first.get('gamma_parent') == pytest.approx(gamma.max())
    assert first.get('gamma_cluster') == pytest.approx(gamma.max(), rel=1e-6)
    assert first.get('faithful') is True
    assert [line['taken'] for line in results['carving']['centres']] == [True, True]


def test_frames_that_are_not_physical_give_no_cluster(snapshots, potential):
    results = extract_clusters(snapshots, Dict({'gamma_select': 0.1, 'gamma_ceiling': 0.2}), potential)
    assert not results.get('clusters')
    assert results['carving']['centres'] == []


def test_a_choice_has_a_reason_for_every_candidate(snapshots, potential, settings):
    carve = {**settings, 'centres_per_snapshot': 4, 'min_separation': 0.0}
    clusters = extract_clusters(snapshots, Dict(carve), potential)['clusters']
    choice = {'max_clusters': 2, 'gamma_min': settings['gamma_select'], 'gamma_ceiling': settings['gamma_ceiling']}
    selection = select_clusters(Dict(choice), potential, candidates=clusters)
    assert 1 <= len(selection['chosen']) <= 2
    assert set(selection['chosen']) <= set(clusters)
    assert sorted(selection['decisions']) == sorted(clusters)
    assert all(decision['reason'] for decision in selection['decisions'].values())
