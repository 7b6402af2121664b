"""Candidates of a screening go through the queue to labels by one command each way."""

import json

import numpy as np
import pytest
from aiida import orm
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.data import ClusterData
from aiida_oodal.engine.ood.looks import JUDGES
from aiida_oodal.queue import QueueStatus, find_entries

pytestmark = [pytest.mark.slow, pytest.mark.daemon]


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ['queue', *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return ' '.join(result.output.split())


def test_whole_candidates_and_the_surroundings_of_their_worst_atoms_are_labelled(screening, daemon_client):
    said = invoke('add', screening.pk, '--priority', 2)
    candidates = screening.outputs.candidates['hot']
    assert said.startswith(f'{candidates.n_structures} structures are in the queue')
    whole = find_entries(campaign=screening.uuid)
    assert sorted(entry.score for entry in whole) == pytest.approx(sorted(a.info['score'] for a in candidates))
    assert {entry.priority for entry in whole} == {2}
    # again: nothing changes
    invoke('add', screening.uuid)
    assert len(find_entries(campaign=screening.uuid)) == len(whole)

    carving = ('--carve', '--cutoff', 3.0, '--radius', 2.5, '--buffer', 1.5)
    said = invoke('add', screening.pk, *carving, '-n', 2)
    assert said.startswith('2 structures are in the queue')
    clusters = [entry for entry in find_entries(campaign=screening.uuid) if entry.key not in {e.key for e in whole}]
    scores = candidates.creator.inputs.decisions.creator.outputs.scores['hot'].get_scores()
    names = [name for name in JUDGES if name in scores.per_atom]
    limits = [scores.thresholds.of_atoms(name, 0.95, scores.numbers) for name in names]
    shares = np.max([scores.per_atom[name] / limit for name, limit in zip(names, limits, strict=True)], axis=0)
    for entry in clusters:
        cluster = entry.load_node()
        assert isinstance(cluster, ClusterData)
        assert cluster.creator.process_label == 'carve_candidates'
        centre = cluster.base.attributes.get('center_parent_index')
        # it is the worst atom of a candidate, and its score is that of the screening
        (row,) = [
            row
            for row in range(len(scores))
            if np.isclose(scores.per_atom[names[0]][scores.offsets[row] + centre], entry.score)
        ]
        assert np.argmax(shares[scores.offsets[row] : scores.offsets[row + 1]]) == centre

        # and so `why` tells it
        place = int(scores.structure_index[row])
        (number,) = [n for n, atoms in enumerate(candidates) if atoms.info['set_index'] == place]
        told = ' '.join(CliRunner().invoke(main, ['why', entry.key], catch_exceptions=False).output.split())
        scored = screening.inputs.targets['hot'].structures
        assert f'The snapshot is structure {place} of StructureSetData<{scored.pk}>, candidate {number}' in told
        assert f'in ScreenWorkChain<{screening.pk}>' in told
        assert f'The centre is atom {centre} of {len(candidates.get_atoms(number))}' in told
        assert f'OodReferenceData<{screening.outputs.references["T1"].pk}>' in told

    for arguments, message in (
        (('add', screening.pk, '--target', 'cold'), "has no target 'cold'; there are hot"),
        (('add', screening.pk, '--carve'), 'cutoff is missing'),
        (('add', screening.pk, '--carve', '--cutoff', 50), 'the edge of the cluster cell'),
    ):
        assert message in invoke(*arguments, code=1)

    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(1)
    count = len(whole) + len(clusters)
    emt = ('--with', 'oodal.label.ase', '--set', 'calculator.calculator=emt')
    said = invoke('label', '--campaign', screening.pk, *emt)
    assert f'{count} of {count} structures are labelled' in said
    found = json.loads(invoke('list', '--campaign', screening.pk, '--json'))
    assert {entry['status'] for entry in found} == {QueueStatus.LABELLED}
    assert all(orm.load_node(entry['label']).n_structures for entry in found)
