"""Questions about campaigns, as queries to copy: ``verdi run examples/queries.py`` answers them for your profile.

Nodes are found by their class and by what hangs on them; ``with_descendants`` follows inputs and outputs through any
number of steps. Everything here is AiiDA's QueryBuilder; what a class can be asked for is in its ``AttributesModel``.
"""

from collections import Counter

from aiida.orm import CalcJobNode, Data, Dict, Node, ProcessNode, QueryBuilder, WorkChainNode
from aiida.plugins import CalculationFactory, DataFactory, WorkflowFactory

CampaignWorkChain = WorkflowFactory('oodal.campaign')
MdCalculation = CalculationFactory('oodal.md')
PotentialData = DataFactory('oodal.ace')
ClusterData = DataFactory('oodal.cluster')
StructureSetData = DataFactory('oodal.structures')


def find_campaigns() -> list[tuple]:
    """Which campaigns are there, and how did they end? PK, label, exit status (None: it runs, or was killed)."""
    query = QueryBuilder().append(CampaignWorkChain, project=['id', 'label', 'attributes.exit_status'], tag='campaign')
    return query.order_by({'campaign': {'ctime': 'desc'}}).all()


def find_halts() -> list[tuple]:
    """Which MD halted, where, and how uncertain was it? PK of the job, last step, largest gamma."""
    query = QueryBuilder().append(MdCalculation, project='id', tag='md')
    query.append(
        Dict,
        with_incoming='md',
        edge_filters={'label': 'results'},
        filters={'attributes.outcome': 'UNCERTAIN'},
        project=['attributes.last_step', 'attributes.max_gamma'],
    )
    return sorted(query.all(), key=lambda row: -row[2])


def find_uncertain_clusters(gamma: float) -> list[tuple]:
    """Which clusters were cut around an atom with gamma above this? PK, gamma in MD, step."""
    filters = {'attributes.gamma_parent': {'>': gamma}}
    query = QueryBuilder().append(
        ClusterData, filters=filters, project=['id', 'attributes.gamma_parent', 'attributes.step']
    )
    return sorted(query.all(), key=lambda row: -row[1])


def count_queue() -> Counter:
    """How many entries of the DFT queue have each status? Counts by status."""
    query = QueryBuilder().append(Data, filters={'extras.oodal_queue.first': True}, project='extras.oodal_queue.status')
    return Counter(query.all(flat=True))


def find_ancestors(potential: Node) -> list[int]:
    """Which clusters was this potential trained on? Their PKs."""
    query = QueryBuilder().append(Node, filters={'id': potential.pk}, tag='potential')
    query.append(ClusterData, with_descendants='potential', project='id')
    return sorted(set(query.all(flat=True)))


def find_learners(cluster: Node) -> list[int]:
    """Which potentials were trained on this cluster? Their PKs."""
    query = QueryBuilder().append(Node, filters={'id': cluster.pk}, tag='cluster')
    query.append(PotentialData, with_ancestors='cluster', project='id')
    return sorted(set(query.all(flat=True)))


def find_errors() -> list[tuple]:
    """How good is each potential on its validation set? PK and force RMSE [meV/angstrom], in their order in time."""
    query = QueryBuilder().append(CalcJobNode, tag='training')
    query.append(PotentialData, with_incoming='training', project=['id', 'ctime'], tag='potential')
    query.append(
        Dict,
        with_incoming='training',
        edge_filters={'label': 'results'},
        filters={'attributes.validation.force_rmse': {'of_type': 'number'}},
        project='attributes.validation.force_rmse',
    )
    return [(pk, error) for pk, _, error in sorted(query.all(), key=lambda row: row[1])]


def find_failures() -> list[tuple]:
    """Which processes failed? PK, what it is, exit status, message."""
    filters = {'attributes.exit_status': {'>': 0}}
    project = ['id', 'attributes.process_label', 'attributes.exit_status', 'attributes.exit_message']
    return QueryBuilder().append(ProcessNode, filters=filters, project=project).all()


def count_jobs(campaign: WorkChainNode) -> Counter:
    """How many jobs of which kind did a campaign run? Counts by kind."""
    return Counter(node.process_label for node in campaign.called_descendants if isinstance(node, CalcJobNode))


def find_level(labels: Node) -> set[str]:
    """At which levels of theory was a labelled set computed? Hashes, as ``aiida-oodal queue levels`` explains them."""
    return set(labels.get_set().info['level_of_theory'])


if __name__ == '__main__':
    for question in (find_campaigns, find_halts, count_queue, find_errors, find_failures):
        print(f'{question.__doc__.splitlines()[0]}\n  {question()}\n')
    print(f'{find_uncertain_clusters.__doc__.splitlines()[0]}\n  {find_uncertain_clusters(5.0)}\n')
    last = (
        QueryBuilder()
        .append(CampaignWorkChain, tag='campaign')
        .order_by({'campaign': {'ctime': 'desc'}})
        .first(flat=True)
    )
    if last is not None:
        print(f'{count_jobs.__doc__.splitlines()[0]}\n  {dict(count_jobs(last))}\n')
        if 'potential' in last.outputs:
            clusters = find_ancestors(last.outputs.potential)
            print(f'{find_ancestors.__doc__.splitlines()[0]}\n  {clusters}\n')
