"""The question of a referee, answered from the graph of a real campaign."""

import numpy as np
import pytest
from aiida import orm
from click.testing import CliRunner

from aiida_oodal.cli.main import main
from aiida_oodal.report import trace_potential

pytestmark = pytest.mark.daemon


def ask(*arguments, expect=0):
    """Return what the command says, in one line."""
    done = CliRunner().invoke(main, ['why', *map(str, arguments)])
    assert done.exit_code == expect, done.output
    return ' '.join(done.output.split())


@pytest.fixture
def link(campaign):
    """Return the chain of the first cluster that the campaign learned."""
    return trace_potential(campaign.outputs.potential)[0]


def find_decision(campaign, cluster):
    for node in campaign.called:
        if node.process_label == 'SelectClustersCalculation':
            for key, candidate in node.inputs.candidates.items():
                if candidate.uuid == cluster.uuid:
                    return node.outputs.selection['decisions'][key]
    raise AssertionError(f'{cluster} was no candidate')


def test_a_cluster(campaign, link):
    cluster = orm.load_node(link.cluster)
    said = ask(link.cluster)
    series = orm.load_node(link.md).outputs.series
    temperature = series.get_array('temp')[np.flatnonzero(series.get_array('step') == link.step)[0]]
    assert f'The snapshot is that of MdCalculation<{link.md}> at step {link.step}' in said
    assert f'where the temperature was {temperature:.0f} K' in said
    assert f"in round 1 of CampaignWorkChain<{campaign.pk}> 'small: campaign'" in said
    assert f'The centre is atom {link.center} of 108' in said
    assert f'AcePotentialData<{link.ignorant}> was made by TrainAceCalculation' in said
    assert f'γ of the centre was {link.gamma:.2f} in the snapshot' in said
    assert 'MD halts above 5' in said
    decision = find_decision(campaign, cluster)
    assert f'This one, γ = {decision["gamma"]:.2f}, was taken: {decision["reason"]}.' in said
    key = cluster.base.extras.get('oodal_queue')['key']
    atoms = next(atoms for atoms in orm.load_node(link.labels) if atoms.info['queue_key'] == key)
    assert f'energy {atoms.info["REF_energy"]:.4f} eV' in said
    assert f'force on the centre {np.linalg.norm(atoms.arrays["REF_forces"][0]):.3f} eV/Å' in said
    (judge,) = [node for node in campaign.called if node.base.attributes.get('process_label') == 'JudgeCalculation'][:1]
    judged = next(atoms for atoms in judge.outputs.judged if atoms.info['queue_key'] == key)
    errors = judged.arrays['force_error']
    driven = f'The force of AcePotentialData<{link.ignorant}>, which drove the walker, was off by'
    assert f'{driven} {errors[0]:.3f} eV/Å on the centre' in said
    assert f'by {errors[cluster.force_mask > 0.5].max():.3f} at most' in said


def test_a_frame_of_an_audit_is_told_of_by_walker_and_step(campaign):
    (name,) = [name for name in campaign.outputs.labels if name.startswith('audit_')]
    frame = campaign.outputs.labels[name].get_atoms(0).info
    said = ask(frame['queue_key'])
    assert f'It is the frame of walker {frame["walker"]} at step {frame["step"]}' in said
    assert f'in the audit of round {name.removeprefix("audit_")} of CampaignWorkChain<{campaign.pk}>' in said
    # and how wrong the potential was there
    (judge,) = [
        job
        for job in orm.QueryBuilder().append(orm.CalcJobNode).all(flat=True)
        if job.process_label == 'JudgeCalculation' and job.inputs.structures.uuid == campaign.outputs.labels[name].uuid
    ]
    judged = next(atoms for atoms in judge.outputs.judged if atoms.info['queue_key'] == frame['queue_key'])
    errors = judged.arrays['force_error']
    assert f'AcePotentialData<{judge.inputs.potential.pk}>, which drove the walker, was off by ' in said
    assert f'{np.sqrt(np.mean(errors**2)):.3f} eV/Å (root mean square of the lengths)' in said
    assert f'by {errors.max():.3f} at most' in said


def test_what_learned_it_first_is_named(link):
    labels = orm.load_node(link.labels)
    jobs = orm.QueryBuilder().append(orm.CalcJobNode).all(flat=True)
    students = [job for job in jobs if 'training' in job.inputs and labels in job.inputs.training.values()]
    oldest = min(students, key=lambda job: job.ctime)
    assert f'AcePotentialData<{oldest.outputs.potential.pk}> was the first that learned it.' in ask(link.cluster)


def test_a_key_of_the_queue_stands_for_the_cluster(link):
    key = orm.load_node(link.cluster).base.extras.get('oodal_queue')['key']
    assert ask(key[:12]) == ask(link.cluster)


def test_a_structure_that_the_campaign_began_with_is_told_of_by_its_key(campaign):
    atoms = campaign.outputs.labels['start'].get_atoms(0)
    said = ask(atoms.info['queue_key'])
    assert f'It is a structure of {len(atoms)} atoms, which was labelled as a whole.' in said
    assert 'It was made by split_structures<' in said
    assert f'energy {atoms.info["REF_energy"]:.4f} eV, largest force' in said
    assert 'was the first that learned it' in said
    assert f"its label was asked for by CampaignWorkChain<{campaign.pk}> 'small: campaign'" in said


def test_labels_and_a_potential_list_their_clusters(campaign, link):
    for asked in (link.labels, campaign.outputs.potential.pk):
        assert f'ClusterData<{link.cluster}>: γ = {link.gamma:.2f} under AcePotentialData<{link.ignorant}>' in ask(
            asked
        )
    assert f"in round 1 of CampaignWorkChain<{campaign.pk}> 'small: campaign'" in ask(link.labels)


def test_markdown(link):
    done = CliRunner().invoke(main, ['why', '--markdown', str(link.cluster)])
    lines = done.output.splitlines()
    assert lines[0].startswith(f'## ClusterData<{link.cluster}>')
    assert sum(line.startswith('### ') for line in lines) == 5
    assert all(not line or line.startswith(('## ', '### ', '- ', '| ', '|---')) for line in lines)
    # a supplement is read where the numbers mean nothing
    assert f'| {link.cluster} | {orm.load_node(link.cluster).uuid} |' in lines
    assert f'| {link.md} | {orm.load_node(link.md).uuid} |' in lines


def test_what_cannot_be_explained_is_refused(campaign):
    assert 'is neither the PK or UUID of a node nor a key' in ask('nonsense', expect=1)
    assert f'CampaignWorkChain<{campaign.pk}> is no cluster, nothing in the queue, no set of labels' in ask(
        campaign.pk, expect=1
    )
