"""What a small campaign left behind: every check reads the same real run."""

import os
import shutil
import subprocess

import pytest
from aiida import orm

from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData
from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.report import read_history, trace_potential, write_report

pytestmark = [pytest.mark.slow, pytest.mark.daemon]


def test_it_halts_learns_and_runs_to_the_end(campaign):
    assert campaign.is_finished_ok, campaign.exit_message
    history = read_history(campaign)
    assert history.healed
    assert len(history.rounds) >= 2
    first, last = history.rounds[0], history.rounds[-1]
    assert {walker.outcome for walker in first.walkers} == {'UNCERTAIN'}
    for walker in first.walkers:
        assert walker.max_gamma > 5.0
        assert walker.last_step < 200
    assert {(walker.outcome, walker.last_step) for walker in last.walkers} == {('COMPLETED', 200)}
    assert last.force_rmse < first.force_rmse


def test_the_last_potential_leads_back_to_those_that_were_ignorant(campaign):
    chain = trace_potential(campaign.outputs.potential)
    history = read_history(campaign)
    assert len(chain) == sum(entry.n_labelled for entry in history.rounds)
    assert {link.ignorant for link in chain} == {entry.potential.pk for entry in history.rounds[:-1]}
    for link in chain:
        assert link.potential == campaign.outputs.potential.pk
        cluster = orm.load_node(link.cluster)
        snapshots = orm.load_node(link.snapshots).get_set()
        row = snapshots.info['step'].tolist().index(link.step)
        gamma = snapshots[row].arrays['gamma'][link.center]
        assert gamma > 2.0
        assert cluster.base.attributes.get('gamma_parent') == pytest.approx(gamma)
        assert link.gamma == pytest.approx(gamma, rel=0.02)
        assert link.md in [node.pk for node in orm.load_node(link.ignorant).base.links.get_outgoing().all_nodes()]


def test_the_same_chain_by_hand(campaign):
    # What docs tell a reviewer to ask: which potentials were ignorant where the last one is not?
    query = orm.QueryBuilder()
    query.append(AcePotentialData, filters={'uuid': campaign.outputs.potential.uuid}, tag='potential')
    query.append(ClusterData, with_descendants='potential', tag='cluster')
    query.append(AcePotentialData, with_descendants='cluster', project='uuid')
    ignorant = set(query.all(flat=True))
    assert ignorant == {orm.load_node(link.ignorant).uuid for link in trace_potential(campaign.outputs.potential)}


def test_every_label_is_booked_in_the_queue(campaign):
    entries = find_entries(campaign=campaign.uuid)
    assert entries
    assert entries == find_entries(QueueStatus.LABELLED, campaign=campaign.uuid)
    for cluster in entries:
        jobs = cluster.base.links.get_outgoing(node_class=orm.CalcJobNode).all_nodes()
        assert [job.process_label for job in jobs] == ['LabelCalculation']


def test_each_label_names_its_cluster_and_keeps_its_mask(campaign):
    for key, labels in campaign.outputs.labels.items():
        if key == 'start':
            continue
        job = labels.creator
        for atoms in labels:
            cluster = job.inputs.clusters[atoms.info['cluster']]
            assert atoms.arrays['force_mask'].tolist() == cluster.force_mask.tolist()
            assert atoms.arrays['REF_forces'].shape == (len(cluster.sites), 3)


def test_every_step_of_the_loop_is_a_node(campaign):
    kinds = {node.process_label for node in campaign.called_descendants}
    assert kinds == {
        'LabelCalculation',
        'TrainAceCalculation',
        'ExploreWorkChain',
        'MdBaseWorkChain',
        'MdCalculation',
        'CarveWorkChain',
        'extract_clusters',
        'select_clusters',
    }
    series = campaign.called[2].outputs.series
    assert series.get_array('step')[0] == 0
    assert len(series.get_array('max_gamma')) == len(series.get_array('step'))
    assert isinstance(campaign.called[2].outputs.snapshots, StructureSetData)


def test_the_report_stands_alone(campaign, tmp_path):
    page = write_report(campaign, tmp_path / 'deep' / 'report.html').read_text()
    assert 'healed: every walker runs to its end' in page
    for link in trace_potential(campaign.outputs.potential):
        assert f'<td class="n">{link.cluster}</td>' in page
    without_plotly = page.split('</script>', 1)[1]
    assert 'src="http' not in without_plotly
    assert 'href="http' not in without_plotly


@pytest.mark.skipif(shutil.which('dot') is None, reason='Graphviz is not installed: no program `dot` on PATH')
def test_verdi_lists_and_draws_it(campaign, aiida_profile, tmp_path):
    def verdi(*arguments):
        command = ['verdi', '-p', aiida_profile.name, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert 'CampaignWorkChain' in verdi('process', 'list', '--all')
    verdi('node', 'graph', 'generate', '--output-format', 'dot', str(campaign.pk))
    assert any(path.stat().st_size > 1000 for path in tmp_path.iterdir())
