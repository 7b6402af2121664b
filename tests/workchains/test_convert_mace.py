"""Trained models are converted by mace-torch's own programs, in real jobs."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from ase.build import bulk
from machine import require

from aiida_oodal.data import MaceModelData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.models import open_model
from aiida_oodal.workchains.convert_mace import LAMMPS_OUTPUTS, build_head_selection, build_lammps_conversion

MODEL = Path(__file__).parents[1] / 'data' / 'mace_alcu' / 'w1.model'

require('mace', 'aiida_shell')


@pytest.fixture(scope='module')
def two_heads(tmp_path_factory):
    """Return a model of two heads whose energies differ."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import mace.modules as mm
        import torch
        from e3nn import o3

        interaction = mm.interaction_classes['RealAgnosticResidualInteractionBlock']
        torch.manual_seed(0)
        module = mm.ScaleShiftMACE(
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=1,
            interaction_cls=interaction,
            interaction_cls_first=interaction,
            num_interactions=2,
            num_elements=1,
            hidden_irreps=o3.Irreps('4x0e'),
            MLP_irreps=o3.Irreps('4x0e'),
            atomic_energies=np.array([[1.0], [2.0]]),
            avg_num_neighbors=8.0,
            atomic_numbers=[13],
            correlation=2,
            gate=torch.nn.functional.silu,
            radial_MLP=[8],
            radial_type='bessel',
            heads=['pt_head', 'Default'],
            atomic_inter_scale=[1.0, 1.0],
            atomic_inter_shift=[0.0, 0.0],
        )
        path = tmp_path_factory.mktemp('heads') / 'two.model'
        torch.save(module, path)
    return path


def energy(path, head=None):
    model = open_model(path, device='cpu', precision='float64', head=head)
    atoms = bulk('Al', a=4.0, cubic=True)
    atoms.rattle(0.1, seed=1)
    return float(model.evaluate(merge_graphs([build_graph(atoms, model.info.cutoff)])).energies[0])


def test_a_model_becomes_one_that_lammps_reads(localhost):
    builder = build_lammps_conversion(MaceModelData(MODEL), localhost, interface='libtorch')
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, (node.exit_message, outputs)
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        content = outputs[LAMMPS_OUTPUTS['libtorch']].get_content('rb')
        converted = torch.jit.load(io.BytesIO(content))
    assert converted.atomic_numbers.tolist() == [13, 29]
    assert float(converted.r_max) == pytest.approx(4.2)


def test_one_head_of_two(localhost, two_heads, tmp_path):
    outputs, node = run_get_node(build_head_selection(MaceModelData(two_heads), localhost, 'Default'))
    assert node.is_finished_ok, node.exit_message
    assert isinstance(outputs['model'], MaceModelData)
    (tmp_path / 'one.model').write_bytes(outputs['model'].get_content('rb'))
    assert energy(tmp_path / 'one.model') == pytest.approx(energy(two_heads, 'Default'), abs=1e-6)
    assert energy(two_heads, 'pt_head') != pytest.approx(energy(two_heads, 'Default'), abs=0.1)


def test_a_head_that_is_not_there_fails(localhost, two_heads):
    _, node = run_get_node(build_head_selection(MaceModelData(two_heads), localhost, 'r2scan'))
    assert not node.is_finished_ok
    assert 'mace_select_head left no model' in node.exit_message
    assert 'Head r2scan not found in model' in node.outputs.stderr.get_content()


def test_an_unknown_interface_is_refused(localhost):
    with pytest.raises(OodalError, match="interface = 'kokkos': there are mliap, libtorch"):
        build_lammps_conversion(MaceModelData(MODEL), localhost, interface='kokkos')
