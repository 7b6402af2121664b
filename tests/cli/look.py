"""Print as JSON what the commands say of a campaign in a profile, and the PK of every node by its UUID.

python look.py PROFILE CAMPAIGN FOLDER; asked about are all clusters, potentials and sets of labels of the campaign.
"""

import json
import sys
from pathlib import Path

from aiida import load_profile, orm
from aiida.common.links import LinkType
from click.testing import CliRunner
from plotly.offline import get_plotlyjs

from aiida_oodal.cli import main
from aiida_oodal.data import AcePotentialData, ClusterData


def say(*words):
    result = CliRunner().invoke(main, list(words))
    if result.exit_code:
        raise SystemExit(f'{words}: {result.output} {result.exception!r}')
    return ' '.join(result.output.split())


profile, campaign, folder = sys.argv[1:]
load_profile(profile)
asked = set()
for process in orm.load_node(campaign).called_descendants:
    for link in process.base.links.get_outgoing(link_type=(LinkType.CREATE, LinkType.RETURN)).all():
        if isinstance(link.node, (AcePotentialData, ClusterData)) or link.link_label == 'labels':
            asked.add(link.node.uuid)
page = Path(folder) / 'page.html'
said = {
    'status': say('campaign', 'status', campaign),
    'report': say('report', campaign, '-o', str(page)) and page.read_text().replace(get_plotlyjs(), ''),
    'queue': say('queue', 'list', '--campaign', campaign, '-n', '1000'),
    **{uuid: say('why', uuid) for uuid in sorted(asked)},
}
pks = dict(orm.QueryBuilder().append(orm.Node, project=['uuid', 'id']).all())
(Path(folder) / 'said.json').write_text(json.dumps({'said': said, 'pks': pks}))
