import gzip
import json
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, Int, PortableCode, SinglefileData, StructureData
from ase.build import bulk

from aiida_oodal.calculations.codes.engine_code import EXECUTABLE, engine_files, pack
from aiida_oodal.calculations.latents import LatentsCalculation
from aiida_oodal.data import MaceModelData, StructureSetData, open_ensemble
from aiida_oodal.engine.structures import StructureSet

DATA = Path(__file__).parents[1] / 'data' / 'mace_alcu'
pytestmark = pytest.mark.slow


@pytest.fixture(scope='session')
def models(aiida_profile):
    return {label: MaceModelData(DATA / f'{label}.model').store() for label in ('w1', 'w2')}


def run(engine_code, localhost, **inputs):
    return run_get_node(LatentsCalculation, code=engine_code, metadata={'computer': localhost}, **inputs)


def test_a_set_of_structures_becomes_latents_of_every_model(engine_code, localhost, models):
    frames = ase.io.read(DATA / 'heldout.extxyz', ':3')
    frames[1].positions[0, 0] = np.nan
    outputs, node = run(engine_code, localhost, structures=StructureSetData(frames), models=models)
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert results['next_structure'] is None
    (failure,) = results['failures']
    assert failure['structure'] == 1
    assert 'atom 0' in failure['message']
    assert outputs['latents']['w1'].base.attributes.get('elements') == ['Al', 'Cu']
    with open_ensemble(outputs['latents'].values()) as ensemble:
        np.testing.assert_array_equal(ensemble.structure_index, [0, 2])
        np.testing.assert_array_equal(ensemble.numbers, np.concatenate([frames[0].numbers, frames[2].numbers]))
        first, second = (np.asarray(rows) for rows in ensemble.latents)
    assert np.isfinite(first).all()
    assert not np.allclose(first, second)
    assert models['w1'].uuid in {link.uuid for link in node.inputs.models.values()}


def test_a_compressed_file_is_streamed_and_a_range_is_a_shard(engine_code, localhost, models, tmp_path):
    path = tmp_path / 'frames.extxyz.gz'
    with (DATA / 'heldout.extxyz').open('rb') as source, gzip.open(path, 'wb') as target:
        shutil.copyfileobj(source, target)
    inputs = {'structures': SinglefileData(path), 'models': models, 'start': Int(1), 'stop': Int(3)}
    outputs, node = run(engine_code, localhost, **inputs)
    assert node.is_finished_ok, node.exit_message
    np.testing.assert_array_equal(outputs['latents']['w2'].get_array('structure_index'), [1, 2])


def test_a_shard_of_a_set_takes_its_own_structures_along_only(engine_code, localhost, models):
    frames = ase.io.read(DATA / 'heldout.extxyz', ':5')
    frames[2].positions[0, 0] = np.nan
    inputs = {'structures': StructureSetData(frames), 'models': models, 'start': Int(1), 'stop': Int(4)}
    outputs, node = run(engine_code, localhost, **inputs)
    assert node.is_finished_ok, node.exit_message
    latents = outputs['latents']['w2']
    np.testing.assert_array_equal(latents.get_array('structure_index'), [1, 3])
    np.testing.assert_array_equal(latents.get_array('numbers'), np.concatenate([frames[1].numbers, frames[3].numbers]))
    assert [failure['structure'] for failure in outputs['results']['failures']] == [2]
    assert len(StructureSet.load(Path(node.get_remote_workdir()) / 'structures.npz')) == 3


def test_a_code_of_an_engine_that_knows_no_parts_gets_the_whole_set(localhost, models, tmp_path):
    # It would take the fourth structure for the second, and say that all is well.
    files, name = engine_files(), 'aiida_oodal/engine/mace/latents_job.py'
    older = files[name].replace(b', first=first)', b')')
    assert older != files[name]
    (tmp_path / EXECUTABLE).write_bytes(pack(files | {name: older}))
    code = PortableCode(label='older-engine', filepath_executable=EXECUTABLE, filepath_files=tmp_path).store()
    frames = ase.io.read(DATA / 'heldout.extxyz', ':6')
    inputs = {'structures': StructureSetData(frames), 'models': models, 'start': Int(2), 'stop': Int(5)}
    outputs, node = run(code, localhost, **inputs)
    assert node.is_finished_ok, node.exit_message
    latents = outputs['latents']['w1']
    np.testing.assert_array_equal(latents.get_array('structure_index'), [2, 3, 4])
    np.testing.assert_array_equal(
        latents.get_array('numbers'), np.concatenate([atoms.numbers for atoms in frames[2:5]])
    )
    assert len(StructureSet.load(Path(node.get_remote_workdir()) / 'structures.npz')) == 6


def test_a_job_that_was_ended_keeps_what_it_had_finished(engine_code, localhost, models, tmp_path, monkeypatch):
    from aiida.engine import CalcJob
    from aiida.orm import CalcJobNode
    from aiida.plugins import ParserFactory

    # A real run, cut as a killed job leaves it: one structure fewer in the list, its latents half written.
    frames = ase.io.read(DATA / 'heldout.extxyz', ':3')
    outputs, done = run(engine_code, localhost, structures=StructureSetData(frames), models=models)
    remote = Path(done.get_remote_workdir())
    folder = tmp_path / 'killed'
    folder.mkdir()
    for name in ('numbers', 'offsets', 'structure_index', 'latents_w1', 'latents_w2', 'energies_w1', 'energies_w2'):
        shutil.copy(remote / f'{name}.npy', folder)
    results = json.loads((remote / 'results.json').read_text()) | {'next_structure': 0}
    (folder / 'results.json').write_text(json.dumps(results))
    for name, n_bytes in (('structure_index', 8), ('offsets', 8), ('latents_w2', 100)):
        path = folder / f'{name}.npy'
        with path.open('r+b') as handle:
            handle.truncate(path.stat().st_size - n_bytes)
    assert isinstance(done, CalcJobNode)
    assert CalcJob.exit_codes.ERROR_SCHEDULER_OUT_OF_WALLTIME.status == 120
    parsed, node = ParserFactory('oodal.latents').parse_from_node(
        done, store_provenance=False, retrieved_temporary_folder=str(folder)
    )
    assert node.exit_status == 400
    assert 'go on with start=2' in node.exit_message
    kept = parsed['latents']['w2'] if 'latents' in parsed else parsed['latents.w2']
    np.testing.assert_array_equal(
        kept.get_array('latents'), outputs['latents']['w2'].get_array('latents')[: len(frames[0]) + len(frames[1])]
    )


def test_wrong_settings_and_empty_ranges_are_refused_at_submission(engine_code, localhost, models):
    structures = StructureSetData(ase.io.read(DATA / 'heldout.extxyz', ':2'))
    with pytest.raises(ValueError, match='layers'):
        run(engine_code, localhost, structures=structures, models=models, settings=Dict({'layers': 'middle'}))
    with pytest.raises(ValueError, match=r'structures 2 to 2 .* this range is empty'):
        run(engine_code, localhost, structures=structures, models=models, start=Int(2))
    with pytest.raises(ValueError, match=r'structures -1 to 1 .* this range is empty'):
        run(engine_code, localhost, structures=StructureData(ase=bulk('Al')), models=models, start=Int(-1))


def test_a_file_that_is_no_mace_model_is_named(engine_code, localhost, models, tmp_path):
    import torch

    torch.save({'weights': [1.0]}, tmp_path / 'w3.model')
    structures = StructureSetData(ase.io.read(DATA / 'heldout.extxyz', ':1'))
    wrong = {**models, 'w3': MaceModelData(tmp_path / 'w3.model')}
    _, node = run(engine_code, localhost, structures=structures, models=wrong)
    assert node.exit_status == 210
    assert 'w3.model holds a dict, not a MACE' in node.exit_message
