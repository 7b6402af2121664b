"""Run a launch script, and check what it submits: the inputs, the daemon, the computers that its jobs need."""

from __future__ import annotations

import ast
import runpy
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.checks import check_computer
from aiida_oodal.operations.doctor import Finding, check_daemon
from aiida_oodal.operations.launch import before_submission, require_valid
from aiida_oodal.workchains.calls import CAMPAIGN
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.campaign_inputs import find_doubts

#: Names of `aiida.engine` that submit or run past `submit_once`.
_PAST = ('submit', 'run', 'run_get_node', 'run_get_pk', 'await_processes')


class _HeldBackError(Exception):
    """Ends a script before its first submission; the message says of what."""


def launch_campaign(
    script: Path, say: Callable[[str], None], *, force: bool = False, dry_run: bool = False
) -> orm.WorkChainNode | None:
    """Run a launch script, and return the campaign that it leaves in a variable.

    Before each process that it submits by :func:`.submit_once`, the inputs of the process, the daemon and the computers
    of the process are checked, each once.

    :param say: told what is broken.
    :param force: submit although daemon or computers are broken.
    :param dry_run: end the script before its first submission, and return None if nothing is broken.
    :raises OodalError: if something is broken, if inputs are refused, or if the script leaves no campaign.
    """
    if dry_run:
        _require_submit_once(script)
    checked: set[str] = set()

    def check(builder: ProcessBuilder) -> None:
        name = f'{builder.process_class.__name__} {builder.metadata.get("label") or ""}'.strip()
        require_valid(builder.process_class, builder._inputs(prune=True))
        if builder.process_class is CampaignWorkChain:
            inputs = CampaignWorkChain.spec().inputs.pre_process(builder._inputs(prune=True))
            for doubt in find_doubts(inputs):
                say(f'{name}: warning, nothing that stops it: {doubt}')
        broken = [finding for finding in _find_new(builder, checked) if not finding.ok]
        for finding in broken:
            say(str(finding))
        # A process that somebody left paused is no reason against another one.
        if any(finding.name != 'processes' for finding in broken) and not force:
            raise OodalError(f'{name} was not submitted: mend the above, or give --force')
        if dry_run:
            raise _HeldBackError(name)

    with before_submission(check):
        try:
            values = runpy.run_path(str(script), run_name='__main__')
        except _HeldBackError as held:
            say(
                f'{held}: its inputs are accepted. Nothing was submitted; what the script does after it was not checked'
            )
            return None
    campaigns = [node for node in values.values() if isinstance(node, orm.WorkChainNode)]
    campaigns = [node for node in campaigns if node.process_type == CAMPAIGN]
    if not campaigns:
        raise OodalError(
            f'{script} left no campaign in a variable, as `campaign = submit_once(label, build_campaign)` does; '
            '`verdi process list` shows what it submitted'
        )
    return campaigns[-1]


def name_place(error: Exception, script: Path) -> str:
    """Say where a script raised an error that has no text of its own."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == script]
    return f'{script}, line {lines[-1]}: {type(error).__name__}' if lines else type(error).__name__


def _require_submit_once(script: Path) -> None:
    """Refuse a script whose submissions cannot be held back.

    :raises OodalError: if it takes what submits from `aiida.engine`, or is no Python.
    """
    try:
        tree = ast.parse(script.read_text(encoding='utf-8'))
    except SyntaxError as error:
        raise OodalError(f'{script}, line {error.lineno}: {error.msg}') from error
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('aiida.engine'):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith('engine'):
            names = [node.attr]
        else:
            continue
        if past := [name for name in names if name in _PAST]:
            raise OodalError(
                f'{script}, line {node.lineno}: --dry-run cannot hold back what `{past[0]}` of AiiDA submits; use '
                '`submit_once` of aiida_oodal.operations.launch'
            )


def _find_new(builder: ProcessBuilder, checked: set[str]) -> Iterator[Finding]:
    """Check the daemon and the computers of a process that were not checked yet, and note them."""
    if 'daemon' not in checked:
        checked.add('daemon')
        yield from check_daemon()
    nodes = list(_find_places(builder._inputs(prune=True)))
    codes = {node.uuid: node for node in nodes if isinstance(node, orm.InstalledCode)}
    computers = {node.uuid: node for node in nodes if isinstance(node, orm.Computer)}
    computers |= {code.computer.uuid: code.computer for code in codes.values()}
    for uuid, computer in computers.items():
        if uuid not in checked:
            checked.add(uuid)
            yield from check_computer(computer, [code for code in codes.values() if code.computer.uuid == uuid])


def _find_places(inputs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the computers and codes among inputs."""
    for value in inputs.values():
        if isinstance(value, Mapping):
            yield from _find_places(value)
        elif isinstance(value, (orm.Computer, orm.AbstractCode)):
            yield value
