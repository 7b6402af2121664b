"""Work with the DFT queue without a campaign: add structures, label those that wait, export them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.labels import carve_candidates, get_outside_level, split_structures
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.level import OUTSIDE
from aiida_oodal.engine.ood.candidates import CandidateOptions
from aiida_oodal.queue import Entry, QueueStatus, enqueue
from aiida_oodal.queue.exchange import export_entries, require_format
from aiida_oodal.queue.listing import Selection, select_entries
from aiida_oodal.workchains.screen import ScreenWorkChain
from aiida_oodal.workchains.stages import load_labeller

from .computers import find_computer
from .launch import run_once, submit_process

#: How many structures `queue label` gives one labeller, if nobody says it.
DRAIN = 1000


def find_node(identifier: str) -> Any:
    """Return a node by its PK or UUID.

    :raises OodalError: if there is none.
    """
    try:
        return orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise OodalError(f'{error}; give the PK or UUID of a node') from error


def add_to_queue(
    identifier: str,
    *,
    target: str | None = None,
    carve: Mapping[str, Any] | None = None,
    limit: int | None = None,
    priority: int = 0,
) -> list[Entry]:
    """Put the structures of a node into the queue, without a level of theory: the first labeller sets it.

    :param identifier: PK or UUID of a screening (its candidates), of another process with clusters among its outputs,
        of a structure set, or of a structure.
    :param target: of the screening; default: all.
    :param carve: fields of :class:`aiida_oodal.engine.carve.settings.CarveSettings`, to cut the surroundings of the
        worst atom out of each candidate; None takes candidates whole.
    :param limit: how many at most: the first of a set, the worst of the candidates.
    :raises OodalError: if the node has no structures, or an argument does not apply to it.
    """
    node = find_node(identifier)
    is_screening = getattr(node, 'process_class', None) is ScreenWorkChain
    if not is_screening and (target is not None or carve is not None):
        raise OodalError(f'{node} is no screening: it has no targets, and no scores that say around which atom to cut')
    scores: dict[str, float] = {}
    if is_screening:
        nodes, scores = _take_candidates(node, target, carve)
    elif isinstance(node, StructureSetData):
        nodes = _in_order(run_once(split_structures, structures=node))
    elif isinstance(node, orm.StructureData):
        nodes = [node]
    elif isinstance(node, orm.ProcessNode) and 'clusters' in node.outputs:
        nodes = _in_order(node.outputs.clusters)
    else:
        raise OodalError(
            f'{node} has no structures to label: give a screening, a process with clusters among its outputs, a '
            'structure set or a structure'
        )
    taken = nodes if limit is None else nodes[:limit]
    campaign = node.uuid if isinstance(node, orm.ProcessNode) else None
    entries = enqueue(taken, None, campaign=campaign, priority=priority, scores=scores)
    return [entries[item.uuid] for item in taken]


def _take_candidates(
    screen: orm.WorkChainNode, target: str | None, carve: Mapping[str, Any] | None
) -> tuple[list[orm.StructureData], dict[str, float]]:
    """Return the candidates of a screening as nodes, the worst first within a target, and their scores by UUID."""
    found = dict(screen.outputs.candidates) if 'candidates' in screen.outputs else {}
    if not found:
        raise OodalError(f'ScreenWorkChain<{screen.pk}> has no candidates: {screen.exit_message or "it has not ended"}')
    if target is not None and target not in found:
        raise OodalError(f'ScreenWorkChain<{screen.pk}> has no target {target!r}; there are {", ".join(sorted(found))}')
    nodes: list[orm.StructureData] = []
    scores: dict[str, float] = {}
    for name, candidates in sorted(found.items()):
        if target not in (None, name) or not candidates.n_structures:
            continue
        if carve is None:
            whole = _in_order(run_once(split_structures, structures=candidates))
            scores |= {node.uuid: float(atoms.info['score']) for node, atoms in zip(whole, candidates, strict=True)}
            nodes += whole
            continue
        scoring = candidates.creator.inputs.decisions.creator
        cut = run_once(
            carve_candidates,
            candidates=candidates,
            scores=scoring.outputs.scores[name],
            metric=orm.Str(CandidateOptions.load(scoring.inputs.candidates.get_dict()).metric),
            settings=orm.Dict(CarveSettings.load(carve).plain()),
        )
        nodes += _in_order(cut)
    return nodes, scores


def drain(
    selection: Selection,
    labeller: str,
    *,
    computer: str,
    code: str | None = None,
    protocol: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int = DRAIN,
) -> tuple[orm.WorkChainNode, int]:
    """Submit a labeller for waiting entries, those with the highest priority first; return it and their number.

    Only entries of its own level of theory are taken, and such as have none yet. Two that run at the same time share
    the work: each entry is labelled once.

    :param labeller: entry point.
    :param computer: label of the computer.
    :param code: label of the code, such as ``pw.x@cluster``; default: the engine's.
    :param overrides: of the labeller's protocol, such as ``{'calculator': {'calculator': 'emt'}}``.
    :param options: of its jobs.
    :raises OodalError: if nothing waits that it may label, or something is not there.
    """
    stage = load_labeller(labeller)
    where = find_computer(computer)
    waiting = select_entries(_pending(selection))
    symbols = sorted({symbol for entry in waiting for symbol in entry.elements})
    try:
        builder: Any = stage.get_builder_from_protocol(
            code=get_engine_code() if code is None else _find_code(code),
            computer=where,
            protocol=protocol,
            overrides=stage.fill_elements(overrides or {}, symbols),
            options=dict(options or {}),
        )
    except (AttributeError, ValueError) as error:  # what AiiDA's builders say of names and values
        raise OodalError(f'{labeller}: {error}') from error
    level = stage.get_level(builder)
    taken = [entry for entry in waiting if entry.level in ('', level.hash)][:limit]
    if not taken:
        others = f'; {len(waiting)} that wait are of other levels of theory' if waiting else ''
        raise OodalError(f'nothing waits that {labeller} may label at {level.text!r}{others}: `aiida-oodal queue list`')
    builder.clusters = {entry.key: entry.load_node() for entry in taken}
    builder.metadata.label = f'queue label: {level.text}'
    try:
        return submit_process(builder), len(taken)
    except ValueError as error:
        raise OodalError(f'{labeller}: {error}') from error


def give_outside(
    selection: Selection, path: Path, kind: str, theory: str | None
) -> tuple[list[Entry], list[Path], int]:
    """Write entries to files for labelling elsewhere.

    :param selection: which; if it says nothing, those that are waited for from outside and those without a level.
    :param kind: one of :data:`aiida_oodal.queue.exchange.FORMATS`.
    :param theory: what will compute them, in words: the level of those that have none.
    :return: the entries, the files, and how many of the entries belong to a level that is computed here.
    :raises OodalError: if there are none, or some need `theory`.
    """
    entries = select_entries(selection)
    if selection.is_empty:
        open_ones = [entry for entry in entries if entry.is_open]
        entries = [entry for entry in open_ones if entry.labeller == OUTSIDE or not entry.level]
    if not entries:
        raise OodalError('there is nothing to export; `aiida-oodal queue list` shows what there is')
    require_format(kind)
    homeless = [entry for entry in entries if not entry.level]
    if homeless and theory is not None:
        given = enqueue([entry.load_node() for entry in homeless], get_outside_level(theory))
        entries = [given.get(entry.node, entry) for entry in entries]
    paths = export_entries(entries, path, kind)
    return entries, paths, sum(entry.labeller != OUTSIDE for entry in entries)


def _pending(selection: Selection) -> Selection:
    """Return the same selection of entries that wait.

    :raises OodalError: if others are asked for.
    """
    if not set(selection.statuses) <= {QueueStatus.PENDING_DFT}:
        raise OodalError('what is labelled is PENDING_DFT; `aiida-oodal queue retry` lets others wait again')
    return replace(selection, statuses=(QueueStatus.PENDING_DFT,))


def _find_code(label: str) -> orm.AbstractCode:
    try:
        code: orm.AbstractCode = orm.load_code(label)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise OodalError(f'{error}; `verdi code list` lists what there is') from error
    return code


def _in_order(nodes: Mapping[str, Any]) -> list[Any]:
    return [nodes[name] for name in sorted(nodes, key=lambda name: (len(name), name))]
