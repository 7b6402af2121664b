"""What a small campaign left behind: every check reads the same real run."""

import os
import runpy
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from aiida import orm
from aiida.orm import CalcJobNode
from machine import needs

from aiida_oodal.calculations.job.cost import count_core_hours
from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.campaign.extend import build_extension
from aiida_oodal.operations.campaign.status import read_status
from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.report import read_history, trace_potential, write_report
from aiida_oodal.report.campaign.ledger import list_processes, read_ledger
from aiida_oodal.report.campaign.methods import write_methods
from aiida_oodal.workchains.label.ase import AseLabelWorkChain

EXAMPLES = Path(__file__).parents[2] / 'examples'
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
    for entry in entries:
        labels = orm.load_node(entry.label)
        assert labels.creator.process_label == 'LabelCalculation'
        assert labels.creator.inputs.clusters[entry.key].uuid == entry.node
        assert entry.key in labels.get_set().info['queue_key']
        assert entry.attempts == 1


def test_each_label_names_its_entry_and_its_level_and_keeps_its_mask(campaign):
    level = AseLabelWorkChain.get_level(campaign.inputs.label['inputs']).hash
    for key, labels in campaign.outputs.labels.items():
        assert set(labels.get_set().info['level_of_theory']) == {level}
        if key == 'start':
            assert labels.n_structures == campaign.inputs.initial.structures.n_structures
            continue
        if key.startswith('audit_'):
            assert set(labels.get_set().info['walker']) == set(campaign.inputs.walkers)
            continue
        for atoms in labels:
            cluster = labels.creator.inputs.clusters[atoms.info['queue_key']]
            assert atoms.arrays['force_mask'].tolist() == cluster.force_mask.tolist()
            assert atoms.arrays['REF_forces'].shape == (len(cluster.sites), 3)


def test_every_step_of_the_loop_is_a_node(campaign):
    kinds = {node.process_label for node in campaign.called_descendants}
    assert kinds == {
        'AceTrainWorkChain',
        'AseLabelWorkChain',
        'AuditWorkChain',
        'CarveClustersCalculation',
        'CarveWorkChain',
        'ExploreWorkChain',
        'JudgeCalculation',
        'LabelCalculation',
        'MdBaseWorkChain',
        'MdCalculation',
        'SelectClustersCalculation',
        'TrainAceCalculation',
        'calibrate_error',
        'split_structures',
        'take_audit_frames',
        'take_labels',
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
    assert f'<h1>small: campaign</h1>\n<p>Self-healing campaign {campaign.pk} ' in without_plotly
    asked = without_plotly.split('What was asked for')[1]
    assert f'<th>time</th><td>begun {campaign.ctime.astimezone():%Y-%m-%d %H:%M}, ended' in asked
    assert '<th>elements</th><td>Al</td>' in asked
    assert '<th>labels</th><td>emt asap_cutoff=False (oodal.label.ase)</td>' in asked
    assert '<th>trainer</th><td>oodal.train.ace: ' in asked
    assert 'number_of_functions = 30' in asked
    assert '<th>thresholds of γ</th><td>learn above 2, halt above 5, not physical above 100</td>' in asked
    assert f'6 structures with 192 atoms, StructureSetData {campaign.inputs.validation.pk}' in asked
    assert '<th>walker hot</th><td>Al108, ' in asked
    assert 'temperature 300 to 1500' in asked
    error = campaign.outputs.results['validation']['force_rmse']
    assert f'<td>validation</td><td class="n">6</td>\n      <td class="n">{error:.1f}</td>' in page
    assert 'src="http' not in without_plotly
    assert 'href="http' not in without_plotly


def test_what_it_cost_and_how_it_was_done(campaign):
    history, processes = read_history(campaign), list_processes(campaign)
    assert {ran.process.pk for ran in processes} == {node.pk for node in campaign.called_descendants}
    ledger = read_ledger(campaign, history, processes)
    rows = {row.what: row for row in ledger.rows}
    assert rows['MD'].n_jobs == sum(len(entry.walkers) for entry in history.rounds)
    assert rows['MD'].core_hours > 0
    labels = campaign.outputs.labels.values()
    for name in ('n_structures', 'n_atoms'):
        assert sum(getattr(row, name) or 0 for row in ledger.rows) == sum(getattr(node, name) for node in labels)
    whole = ledger.whole_cells
    assert whole.n_clusters == sum(entry.n_labelled for entry in history.rounds)
    assert whole.largest == 108
    assert whole.core_hours == pytest.approx(whole.factor * rows['labels of clusters'].core_hours)
    methods = write_methods(campaign, history, ledger, processes)
    assert [reference.key for reference in methods.references] == [
        'aiida',
        'ace',
        'lammps',
        'd_optimality',
        'active_learning',
        'ase',
    ]
    jobs = [ran.process for ran in processes if ran.process.process_label == 'MdCalculation']
    lammps = jobs[-1].outputs.retrieved.base.repository.get_object_content('log.lammps').splitlines()[0]
    for said in (
        lammps,
        f'AiiDA {version("aiida-core")} [1]',
        f'with python-ace {version("python-ace")} to all labels',
        f'through ASE {version("ase")} [6]',
        'warm: Al108, NPT at 300 to 900 K and 0 bar, 200 steps of 3 fs',
        f'In {len(history.rounds)} rounds 10 initial structures (320 atoms), {whole.n_clusters} cut cells (',
        f'went from {history.trainings[0]["validation"]["force_rmse"]:.0f} to ',
        'all runs reached their last step',
    ):
        assert said in methods.text, said


def test_the_cookbook_of_queries_finds_what_the_campaign_did(campaign, capsys):
    queries = runpy.run_path(str(EXAMPLES / 'queries.py'))
    assert [campaign.pk, 'small: campaign', 0] in queries['find_campaigns']()
    history = read_history(campaign)
    steps = {walker.last_step for entry in history.rounds for walker in entry.walkers if walker.outcome == 'UNCERTAIN'}
    assert steps <= {step for _, step, _ in queries['find_halts']()}
    chain = {link.cluster for link in trace_potential(campaign.outputs.potential)}
    assert set(queries['find_ancestors'](campaign.outputs.potential)) == chain
    for cluster in chain:
        assert campaign.outputs.potential.pk in queries['find_learners'](orm.load_node(cluster))
    assert chain <= {pk for pk, _, _ in queries['find_uncertain_clusters'](0.0)}
    assert queries['count_queue']()['LABELLED'] >= len(chain)
    last = campaign.outputs.results['validation']['force_rmse']
    assert (campaign.outputs.potential.pk, last) in queries['find_errors']()
    assert queries['count_jobs'](campaign)['MdCalculation'] == sum(len(entry.walkers) for entry in history.rounds)
    level = AseLabelWorkChain.get_level(campaign.inputs.label['inputs']).hash
    assert queries['find_level'](campaign.outputs.labels['round_1']) == {level}
    runpy.run_path(str(EXAMPLES / 'queries.py'), run_name='__main__')
    assert 'Which clusters was this potential trained on?' in capsys.readouterr().out


def test_every_round_says_what_gamma_means(campaign, tmp_path):
    history = read_history(campaign)
    validation = campaign.inputs.validation
    for entry in history.rounds:
        found = entry.calibration
        assert found['n_validation'] == validation.n_atoms
        assert 0.8 < found['on_validation'] <= 1.0
        assert (found['on_labels'] is None) == (entry.number == 1)
        judged = entry.judged['judged'].creator
        assert judged.inputs.validation.uuid == validation.uuid
        assert judged.inputs.potential.uuid == entry.potential.uuid
    last = campaign.outputs.calibration
    assert last.get_dict() == history.rounds[-1].calibration
    incoming = last.creator.base.links.get_incoming(link_label_filter='round%').all_link_labels()
    assert sorted(incoming) == [f'round_{number}' for number in range(1, len(history.rounds))]
    assert read_status(campaign).calibration == last['sentences']
    page = write_report(campaign, tmp_path / 'report.html').read_text()
    assert f'<td class="n">{100 * last["on_validation"]:.0f} %</td>' in page


def test_where_it_stands_and_what_would_go_on(campaign):
    status = read_status(campaign)
    assert status.round == len(read_history(campaign).rounds)
    assert status.state == f'healed: every walker ran to its end in round {status.round}'
    assert (
        status.queue['LABELLED']
        == status.n_labels
        == sum(node.n_structures for node in campaign.outputs.labels.values())
    )
    assert status.force_rmse[-1] == campaign.outputs.results['validation']['force_rmse']
    assert {(walker.name, walker.outcome) for walker in status.walkers} == {('hot', 'COMPLETED'), ('warm', 'COMPLETED')}
    assert status.failed == []
    jobs = [node for node in campaign.called_descendants if isinstance(node, CalcJobNode)]
    assert status.core_hours == pytest.approx(sum(count_core_hours(job) or 0.0 for job in jobs))
    assert status.core_hours > status.label_core_hours
    assert status.learned.startswith(f'AcePotentialData<{campaign.outputs.potential.pk}>, trained in round ')
    builder = build_extension(campaign, {'md': {'steps': 300}}, rounds=2)
    assert builder.initial.potential.uuid == campaign.outputs.potential.uuid
    # The labels of the last audit are the only ones that nothing was trained on.
    assert builder.initial['train'].value
    with pytest.raises(OodalError, match="did you mean 'steps'"):
        build_extension(campaign, {'md': {'step': 300}})


@needs('graphviz')
def test_verdi_lists_and_draws_it(campaign, aiida_profile, tmp_path):
    def verdi(*arguments):
        command = ['verdi', '-p', aiida_profile.name, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert 'CampaignWorkChain' in verdi('process', 'list', '--all')
    verdi('node', 'graph', 'generate', '--output-format', 'dot', str(campaign.pk))
    assert any(path.stat().st_size > 1000 for path in tmp_path.iterdir())
