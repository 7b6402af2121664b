"""What a page says of costs, failures, methods and provenance, and that it draws no more than can be read."""

import re

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from ase.build import bulk

from aiida_oodal.data import ClusterData, StructureSetData
from aiida_oodal.report.campaign.citations import CITATIONS, References
from aiida_oodal.report.campaign.failures import read_failures
from aiida_oodal.report.campaign.figures import (
    MOST_CLUSTERS,
    MOST_POINTS,
    MOST_ROUNDS,
    choose_clusters,
    choose_rounds,
    draw_clusters,
    draw_errors,
    draw_gamma,
)
from aiida_oodal.report.campaign.history import CampaignHistory, Round, WalkerRun
from aiida_oodal.report.campaign.ledger import list_processes, read_ledger
from aiida_oodal.report.campaign.picture import draw_provenance
from aiida_oodal.report.campaign.provenance import Link
from aiida_oodal.workchains.calls import Call, Stage


def make_process(kind=orm.WorkChainNode, *, caller=None, call='', inputs=(), status=0, message='', label=''):
    node = kind()
    for name, given in dict(inputs).items():
        node.base.links.add_incoming(given, LinkType.INPUT_WORK, name)
    if caller is not None:
        link = LinkType.CALL_CALC if kind is not orm.WorkChainNode else LinkType.CALL_WORK
        node.base.links.add_incoming(caller, link, call)
    node.store()
    node.set_process_label(label)
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(status)
    node.set_exit_message(message)
    return node


def make_cluster(gamma, step, n_atoms=4):
    atoms = bulk('Al', a=4.0, cubic=True)[:n_atoms]
    atoms.arrays |= {
        'force_mask': np.ones(n_atoms),
        'parent_index': np.arange(n_atoms),
        'gamma': np.full(n_atoms, gamma),
    }
    where = {'center_parent_index': 0, 'radius': 1.0, 'buffer': 1.0, 'shape': 'cube', 'repair': 'error'}
    atoms.info |= {**where, 'gamma_parent': gamma, 'step': step, 'queue_key': f'{gamma}-{step}'}
    return ClusterData(atoms).store()


def make_md(n_rows):
    """Return an exploration of a crystal of 32 atoms with a series of so many rows, its largest gamma in the middle."""
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)]).store()
    md = make_process(inputs={'md__structure': crystal})
    gamma = np.ones(n_rows)
    gamma[n_rows // 2] = 7.5
    series = orm.ArrayData()
    for name, values in (('step', np.arange(n_rows)), ('max_gamma', gamma), ('temp', np.full(n_rows, 300.0))):
        series.set_array(name, values)
    series.store().base.links.add_incoming(md, LinkType.RETURN, 'series')
    return md


@pytest.fixture(scope='module')
def long(aiida_profile):
    """Return a campaign of sixty rounds; in each two clusters of four atoms were cut from one frame of 32."""
    md, rounds = make_md(2000), []
    for number in range(1, 61):
        clusters = {'c0': make_cluster(6.0, number), 'c1': make_cluster(5.0 + number, number)}
        atoms = [cluster.get_atoms() for cluster in clusters.values()]
        for frame, key in zip(atoms, clusters, strict=True):
            frame.info['queue_key'] = f'{number}-{key}'
        labels = StructureSetData(atoms).store()
        queued = {f'{number}-{key}': cluster for key, cluster in clusters.items()}
        walker = WalkerRun('hot', 'UNCERTAIN', '', last_step=number, max_gamma=6.0, md=md, clusters=clusters)
        rounds.append(Round(number, None, None, None, (walker,), queued=queued, labels=labels))
    trainings = tuple({'training': {'n_atoms': number}} for number in range(61))
    return CampaignHistory(1, 'uuid', 'running', tuple(rounds), trainings)


def test_whole_cells_cost_the_cube_of_their_atoms_once_for_each_frame(long):
    whole = read_ledger(make_process(), long, []).whole_cells
    assert (whole.n_clusters, whole.n_cells, whole.largest) == (120, 60, 32)
    assert whole.factor == pytest.approx(60 * 32**3 / (120 * 4**3))
    assert whole.core_hours is None


def test_of_many_rounds_some_are_drawn_the_first_and_the_last_among_them(long):
    drawn = [entry.number for entry in choose_rounds(long)]
    assert len(drawn) == MOST_ROUNDS
    assert (drawn[0], drawn[-1]) == (1, 60)
    figures = draw_gamma(long)
    assert list(figures) == ['hot']
    assert len(figures['hot'].data) == MOST_ROUNDS
    line = figures['hot'].data[0]
    assert len(line.x) <= MOST_POINTS
    assert (line.x[0], line.x[-1], max(line.y)) == (0, 1999, 7.5)
    chosen = choose_clusters(long)
    assert len(chosen) == MOST_CLUSTERS
    assert {cluster.base.attributes.get('gamma_parent') for entry, _, cluster in chosen if entry.number == 60} == {65.0}
    pages = [*figures.values(), draw_clusters(long), draw_errors(long)]
    assert sum(len(figure.to_json()) for figure in pages) < 300_000


def test_of_few_clusters_all_are_drawn(long):
    few = CampaignHistory(1, 'uuid', 'running', long.rounds[:3], ())
    assert [entry.number for entry in choose_rounds(few)] == [1, 2, 3]
    assert [entry.number for entry, _, _ in choose_clusters(few)] == [1, 1, 2, 2, 3, 3]


def test_jobs_belong_to_what_they_were_for_and_failures_to_their_cause():
    campaign = make_process()
    explore = make_process(caller=campaign, call=str(Call(Stage.EXPLORE, 1, 'hot')))
    first = make_process(caller=explore, call='md', status=0)
    job = {'kind': orm.CalcJobNode}
    make_process(**job, caller=first, call='iteration_01', label='MdCalculation', status=400, message='out of time')
    make_process(**job, caller=first, call='iteration_02', label='MdCalculation')
    make_process(**job, caller=explore, call='carve', label='CarveClustersCalculation')
    make_process(**job, caller=campaign, call=str(Call(Stage.SELECT, 1)), label='SelectClustersCalculation')
    train = make_process(
        caller=campaign, call=str(Call(Stage.TRAIN, 1)), status=450, message='its job failed', label='T'
    )
    make_process(**job, caller=train, call='fit', label='TrainAceCalculation', status=110, message='out of memory')
    others = [stage for stage in Stage if stage not in (Stage.EXPLORE, Stage.SELECT, Stage.TRAIN)]
    for stage in others:  # of every stage there may be jobs
        make_process(**job, caller=campaign, call=str(Call(stage, 1)), label='Job')
    processes = list_processes(campaign)
    ledger = read_ledger(campaign, CampaignHistory(1, 'uuid', 'running', (), ()), processes)
    assert {row.what: row.n_jobs for row in ledger.rows} == {
        'MD': 2,
        'carving': 1,
        'choice of clusters': 1,
        'labels of clusters': 1,
        'audit': 1,
        'training': 2,
        'comparison with labels': 2,
    }
    assert ledger.core_hours is None
    failures = read_failures(campaign, processes)
    assert {(failure.process, failure.exit_status, failure.recovered) for failure in failures.processes} == {
        ('MdCalculation', 400, True),
        ('TrainAceCalculation', 110, False),
    }
    assert failures.processes[0].named_calls == 'explore_1_hot'


def test_the_picture_has_one_way_for_each_potential_that_was_ignorant():
    links = [
        Link(
            potential=90,
            labels=10 * n,
            cluster=10 * n + k,
            snapshots=5,
            md=6,
            ignorant=n,
            gamma=gamma,
            step=7,
            center=0,
        )
        for n in range(1, 11)
        for k, gamma in ((1, 5.0), (2, 9.0 + n))
    ]
    picture = draw_provenance(links)
    told = [(box.title, box.detail) for box in picture.boxes]
    assert told[0] == ('potential', 'PK 1')
    assert ('cluster', 'PK 12, γ 10.00') in told
    assert ('cluster', 'PK 102, γ 19.00') in told
    assert not any('γ 5.00' in detail for _, detail in told)
    assert told[-1] == ('potential', 'PK 90, the last')
    assert len(told) == 6 * 5 + 1
    assert len(picture.arrows) == 6 * 5
    assert all(0 < box.x < picture.width and 0 < box.y < picture.height for box in picture.boxes)
    assert draw_provenance([]) is None


def test_references_are_numbered_as_they_are_cited():
    references = References()
    assert references.cite('lammps') == '[1]'
    assert references.cite('ace', 'lammps') == '[2, 1]'
    assert [citation.key for citation in references.cited] == ['lammps', 'ace']
    assert references.cited[1].text == (
        'R. Drautz, Atomic cluster expansion for accurate and transferable interatomic potentials, Physical Review B '
        '99, 014104 (2019), doi:10.1103/PhysRevB.99.014104.'
    )


@pytest.mark.parametrize('key', sorted(CITATIONS))
def test_every_bibtex_entry_is_whole(key):
    entry = CITATIONS[key].bibtex
    assert entry.startswith(f'@article{{{key},\n')
    assert entry.count('{') == entry.count('}')
    fields = dict(re.findall(r'^  (\w+) = \{(.*)\},?$', entry, flags=re.MULTILINE))
    assert {'author', 'title', 'journal', 'volume', 'pages', 'year'} <= set(fields)
