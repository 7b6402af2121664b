"""What the page reads of the graph: a screening of latents that are there already, so that no model has to run."""

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.data import LatentsData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.report.screening.graph import view_from_screen
from aiida_oodal.report.screening.page import headline
from aiida_oodal.workchains.screen import ScreenWorkChain


def as_nodes(latents, folder):
    """Store the latents of an ensemble as a job leaves them."""
    for name in ('numbers', 'offsets', 'structure_index'):
        np.save(folder / f'{name}.npy', getattr(latents, name))
    for k, label in enumerate(latents.labels):
        np.save(folder / f'latents_{label}.npy', np.asarray(latents.latents[k][: latents.n_atoms]))
        np.save(folder / f'energies_{label}.npy', latents.energies[k])
        np.save(folder / f'forces_{label}.npy', np.asarray(latents.forces[k][: latents.n_atoms]))
    information = {'elements': ['H', 'C', 'O']}
    return {label: LatentsData.from_folder(folder, label, information) for label in latents.labels}


@pytest.fixture(scope='module')
def screening(localhost, screened_sets, tmp_path_factory):
    """Run a screening against two ensembles, one of which could not evaluate the first hot structure."""
    nodes = {}
    for name, (_, latents) in screened_sets.items():
        nodes[name] = as_nodes(latents, tmp_path_factory.mktemp(name))
    structures = {name: StructureSetData(own) for name, (own, _) in screened_sets.items()}
    hot = screened_sets['hot'][1]
    part = as_nodes(hot.select(np.arange(1, len(hot))), tmp_path_factory.mktemp('part'))
    builder = ScreenWorkChain.get_builder()
    ensemble = {
        'reference': structures['reference'],
        'reference_latents': nodes['reference'],
        'heldout': structures['heldout'],
        'heldout_latents': nodes['heldout'],
    }
    builder.ensembles = {'A': ensemble, 'B': ensemble}
    builder.targets = {
        'cold': {'structures': structures['cold'], 'latents': {'A': nodes['cold'], 'B': nodes['cold']}},
        'hot': {'structures': structures['hot'], 'latents': {'A': nodes['hot'], 'B': part}},
    }
    builder.candidates = Dict({'n': 4})
    builder.embed.code = get_engine_code()  # asked for, though no model has to run
    builder.embed.metadata.computer = localhost
    node = run_get_node(builder)[1]
    assert node.is_finished_ok, node.exit_message
    return node


def test_a_screening_is_read_from_its_node(screening, screened_sets):
    view = view_from_screen(screening, max_points=50)
    roles = {entry.name: entry.role for entry in view.sets}
    assert roles == {
        'held out of A': 'heldout',
        'held out of B': 'heldout',
        'reference of A': 'reference',
        'reference of B': 'reference',
        'cold': 'target',
        'hot': 'target',
    }
    assert view.references == ('A', 'B')
    assert sum(len(entry.positions) for entry in view.sets) == 50
    cold, hot = view.targets
    scores = screening.outputs.scores['cold']['A'].get_scores()
    np.testing.assert_array_equal(cold.scores['A'].of('mahalanobis'), scores.of('mahalanobis'))
    # The structure that B lacks is left out, and the others are still those of the set.
    assert hot.scores['A'].structure_index.tolist() == hot.scores['B'].structure_index.tolist() == list(range(1, 30))
    taken = [entry['structure'] for entry in screening.outputs.decisions['hot'].get_dict()['taken']]
    assert [hot.first.structure_index[place] for place in hot.candidates] == [index for index in taken if index]
    assert set(hot.candidates) <= set(hot.positions)
    assert hot.nodes['structures'].uuid == screening.inputs.targets['hot']['structures'].uuid
    assert hot.nodes['scores B'].uuid == screening.outputs.scores['hot']['B'].uuid
    assert view.nodes['screening'].pk == screening.pk
    labels, latents = screened_sets['hot']
    error = np.linalg.norm(np.mean(latents.forces, axis=0) - labels.arrays['REF_forces'], axis=1)
    np.testing.assert_allclose(hot.force_errors, error[labels.offsets[1] :])
    assert set(hot.errors) == {'force error [eV/Å]', 'energy error [eV/atom]'}
    # The models' energies count from 0, the labels from -40 eV: that is no error.
    assert np.nanmax(hot.energy_errors) < 0.1
    (note,) = [note for note in view.notes['A'] if 'different zeros' in note]
    assert 'fitted on the reference set' in note
    assert headline(view)[0].startswith('hot against A: 29 of 29 structures are out')


def test_a_screening_without_scores_is_refused_with_what_to_do(aiida_profile):
    from aiida.orm import WorkChainNode

    node = WorkChainNode().store()
    node.set_process_state('excepted')
    with pytest.raises(OodalError, match='verdi process report'):
        view_from_screen(node)
