"""Large frames stay where MD ran, and the carving job reads them there."""

from pathlib import Path

import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk
from machine import require

from aiida_oodal.calculations import md
from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.report.campaign.provenance import find_md
from aiida_oodal.workchains.carve import CarveWorkChain
from aiida_oodal.workchains.explore import ExploreWorkChain

require('lammps', 'pyace')

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'


@pytest.fixture(scope='module')
def walker(localhost):
    """Return a walker that is uncertain after a few steps: a melt that the potential does not know."""
    job = {'code': get_engine_code(), 'metadata': {'computer': localhost}}
    atoms = bulk('Al', cubic=True, a=4.0).repeat(4)
    atoms.rattle(0.05, seed=1)
    settings = {'temperature': 4000, 'steps': 400, 'sample_every': 10, 'timestep_ps': 0.002}
    return {
        'md': {
            **job,
            'potential': AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi').store(),
            'structure': StructureSetData([atoms]).store(),
            'settings': orm.Dict(settings),
        },
        'carve': {**job, 'settings': orm.Dict({'radius': 3.0, 'buffer': 3.0, 'tolerance': 1e-2})},
        'thresholds': orm.Dict({'gamma_select': 1.5, 'gamma_break': 3.0, 'gamma_ceiling': 1e4}),
    }


@pytest.fixture(scope='module')
def brought(walker):
    outputs, node = run_get_node(ExploreWorkChain, **walker)
    assert node.is_finished_ok, node.exit_message
    return outputs


@pytest.fixture(scope='module')
def stayed(walker):
    outputs, node = run_get_node(
        ExploreWorkChain, **{**walker, 'md': {**walker['md'], 'retrieve_snapshots': orm.Bool(False)}}
    )
    assert node.is_finished_ok, node.exit_message
    return outputs


def keys(outputs):
    return sorted(cluster.base.attributes.get('content_key') for cluster in outputs['clusters'].values())


def test_the_same_clusters_whether_the_frames_travel_or_not(brought, stayed):
    assert 'snapshots' in brought
    assert not {'snapshots', 'final'} & set(stayed)
    names = stayed['retrieved'].base.repository.list_object_names()
    assert 'snapshots.dump' not in names
    for name in ('outcome', 'last_step', 'trigger_step'):
        assert stayed['results'][name] == brought['results'][name]
    assert brought['results']['outcome'] == 'UNCERTAIN'
    assert keys(brought)
    assert keys(stayed) == keys(brought)
    assert stayed['carving']['centres'] == brought['carving']['centres']
    assert 'Learn from that of step' in stayed['carving']['verdict']


def test_a_cluster_knows_the_run_whose_frames_stayed(stayed):
    cluster = stayed['clusters']['c0']
    source = cluster.creator.inputs.parent_folder
    assert find_md(source, cluster.base.attributes.get('step')).outputs.results.uuid == stayed['results'].uuid
    assert cluster.gamma[0] == pytest.approx(cluster.base.attributes.get('gamma_parent'))
    assert len(cluster.gamma) == len(cluster.get_atoms())


def test_frames_of_more_atoms_than_the_limit_stay_unless_asked_for(walker, monkeypatch):
    inputs = walker['md']
    assert md.brings_frames(inputs)
    monkeypatch.setattr(md, 'MOST_ATOMS_RETRIEVED', 255)
    assert not md.brings_frames(inputs)
    assert md.brings_frames({**inputs, 'retrieve_snapshots': orm.Bool(True)})


def test_a_folder_that_is_no_run_or_was_cleaned_is_refused(walker, stayed, localhost, aiida_computer, tmp_path):
    carve = {
        **{name: walker[name] for name in ('carve', 'thresholds')},
        'potential': walker['md']['potential'],
    }
    foreign = orm.RemoteData(computer=localhost, remote_path=str(tmp_path)).store()
    with pytest.raises(ValueError, match=r'is not the folder of a run of `oodal\.md`'):
        run_get_node(CarveWorkChain, **carve, parent_folder=foreign)
    with pytest.raises(ValueError, match='give either `snapshots`, or `parent_folder`'):
        run_get_node(CarveWorkChain, **carve)
    folder = stayed['remote_folder']
    elsewhere = aiida_computer(label='far-from-md', transport_type='core.local', scheduler_type='core.direct')
    other = {**carve['carve'], 'metadata': {'computer': elsewhere}}
    with pytest.raises(ValueError, match=r"is on computer .*, the job would run on 'far-from-md'.*retrieve_snapshots"):
        run_get_node(CarveWorkChain, **{**carve, 'carve': other}, parent_folder=folder)
    for name in ('log.lammps', 'snapshots.dump', 'final.dump'):
        (Path(folder.get_remote_path()) / name).unlink()
    _, node = run_get_node(CarveWorkChain, **carve, parent_folder=folder)
    assert node.exit_status == 402
    assert 'it was cleaned or moved since. Run MD again' in node.exit_message
