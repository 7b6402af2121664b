"""The group of commands. Each is imported when it is called, so that ``--help`` answers at once, without AiiDA."""

from __future__ import annotations

import importlib

import click

from aiida_oodal import __version__
from aiida_oodal.operations.profiles import extend_path

#: Command -> where it is, and what the help of the group says of it.
COMMANDS = {
    'campaign': (
        'aiida_oodal.cli.campaign:campaign',
        'Launch, list, compare, pause, stop, extend and export campaigns, and show where one stands.',
    ),
    'doctor': ('aiida_oodal.cli.doctor:doctor', 'Check all that a campaign needs, and say how to repair it.'),
    'init': ('aiida_oodal.cli.init:init', 'Write a launch script for a campaign of your own.'),
    'queue': ('aiida_oodal.cli.queue:queue', 'List, change and label the entries of the DFT queue.'),
    'quickstart': ('aiida_oodal.cli.quickstart:quickstart', 'Run a script with a campaign in a new AiiDA profile.'),
    'report': ('aiida_oodal.cli.report:report', 'Write the HTML page of a campaign.'),
    'scores': ('aiida_oodal.cli.screen:scores', 'Print and export what a screening found.'),
    'screen': ('aiida_oodal.cli.screen:screen', 'Screen sets of structures.'),
    'settings': (
        'aiida_oodal.cli.settings:settings',
        'Print what a campaign can be told, with the values under a protocol.',
    ),
    'setup': ('aiida_oodal.cli.setup:setup', 'Set up profile, computer and codes, and test them.'),
    'why': ('aiida_oodal.cli.why:why', 'Tell how a cluster, a label or a potential came about.'),
    'watch': ('aiida_oodal.cli.watch:watch', 'Follow a campaign until it ends.'),
}


class LazyGroup(click.Group):
    """The group of :data:`COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        # AiiDA looks for `verdi` when it is imported.
        extend_path()
        module, _, name = COMMANDS[cmd_name][0].partition(':')
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section('Commands'):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.group(cls=LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='aiida-oodal')
def main() -> None:
    """Self-healing machine-learned potentials: find where a potential extrapolates, label it, retrain."""
