"""Why is this in the provenance graph? The chain of a cluster, a label or a potential, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aiida_oodal.data import ClusterData, MaceModelData, PotentialData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, QUEUE_KEY
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.engine.trust.audit import WALKER
from aiida_oodal.engine.trust.judge import ERROR
from aiida_oodal.queue import QueueStatus
from aiida_oodal.queue.entry import EXTRA, Entry
from aiida_oodal.workchains.calls import Call, Stage

from .links import find_creators, find_walk, find_walks, read_all_inputs, read_inputs
from .provenance import (
    find_candidate,
    find_clusters,
    find_first_student,
    find_frames,
    find_grader,
    find_judged,
    find_learned,
    find_md,
)

#: What can be asked about.
Explained = ClusterData | orm.StructureData | StructureSetData | PotentialData | MaceModelData
#: Neighbours of the centre are counted within this distance, angstrom.
_NEIGHBOURHOOD = 4.0


@dataclass(frozen=True)
class Section:
    """A heading, and sentences that each stand alone."""

    title: str
    sentences: tuple[str, ...]


def explain(node: orm.Node) -> list[Section]:
    """Tell how a node came about and what became of it.

    :param node: a cluster, another structure of the queue, a set of labels, a potential or a MACE model.
    :raises OodalError: if it is none of these.
    """
    if isinstance(node, ClusterData):
        return list(_explain_cluster(node))
    if isinstance(node, orm.StructureData) and EXTRA in node.base.extras.all:
        return list(_explain_structure(node))
    if isinstance(node, StructureSetData):
        return list(_explain_labels(node))
    if isinstance(node, (PotentialData, MaceModelData)):
        return list(_explain_model(node))
    raise OodalError(
        f'{_name(node)} is no cluster, nothing in the queue, no set of labels and no potential. Clusters are in the '
        'report of a campaign and in `aiida-oodal queue list`; `verdi process show` of a campaign lists its labels and '
        'potentials'
    )


def _tell_repair(cluster: ClusterData) -> str:
    """Say what was done to atoms of the buffer that overlapped across the new boundary; empty if there were none."""
    get = cluster.base.attributes.get
    dropped, moved = get('repair_dropped', 0), get('repair_moved', 0)
    told = [f'{count} were {done}' for count, done in ((dropped, 'left out'), (moved, 'moved')) if count]
    return f' Of the atoms of the buffer that overlap across the new boundary {" and ".join(told)}.' if told else ''


def _explain_cluster(cluster: ClusterData) -> Iterator[Section]:
    get = cluster.base.attributes.get
    centre = cluster.get_ase().symbols[0]
    if cluster.is_whole:
        told = f'It is a whole snapshot of {len(cluster.sites)} atoms, asked for because of one {centre} atom.'
    else:
        buffer = f'{get("buffer"):g} Å of buffer around it' + ('' if get('shape') == 'cube' else ', and vacuum beyond')
        told = (
            f'It is a periodic cell of {len(cluster.sites)} atoms around one {centre} atom: {get("n_core")} core atoms '
            f'within {get("radius"):g} Å, and {buffer}.' + _tell_repair(cluster)
        )
    yield Section(f'{_name(cluster)}: {cluster.get_formula()}', (told,))
    job = cluster.creator
    if job is None:
        yield Section(
            'Where it comes from', ('Nobody knows: the node was stored by hand or imported without its past.',)
        )
    else:
        yield from _explain_cut(cluster, job)
    core = cluster.force_mask > 0.5
    yield Section('What became of it', tuple(_tell_label(cluster, core)))


def _explain_structure(structure: orm.StructureData) -> Iterator[Section]:
    """Tell of a structure of the queue that is no cluster: what a campaign began with, or a frame of an audit."""
    job = structure.creator
    where = 'Nobody knows where it comes from: the node was stored by hand or imported without its past.'
    if job is not None:
        given = ', '.join(_name(node) for node in read_inputs(job).values() if isinstance(node, orm.Data))
        where = f'It was made by {_name(job)}' + (f' from {given}.' if given else '.') + _tell_audit(structure, job)
    count = len(structure.sites)
    told = f'It is a structure of {count} atom{"s" if count > 1 else ""}, which was labelled as a whole.'
    yield Section(f'{_name(structure)}: {structure.get_formula()}', (told, where))
    yield Section('What became of it', tuple(_tell_label(structure, np.ones(count, dtype=bool))))


def _tell_audit(structure: orm.StructureData, job: orm.ProcessNode) -> str:
    """Say which frame of which walker it is if an audit asked for its label; else return an empty text."""
    walk = find_walk(job)
    if walk is None or walk[1].stage is not Stage.AUDIT:
        return ''
    campaign, call = walk
    links = job.base.links.get_outgoing(link_type=LinkType.CREATE).all()
    name = next(link.link_label for link in links if link.node.uuid == structure.uuid)
    frames = read_inputs(job).get('structures')
    frame = frames.get_atoms(int(name.removeprefix('s'))).info if isinstance(frames, StructureSetData) else {}
    which = f'of walker {frame[WALKER]} at step {frame["step"]}' if WALKER in frame else 'of a walker'
    return (
        f' It is the frame {which}, labelled to find out whether the end of that walker can be believed, in the audit '
        f'of round {call.round} of {_name(campaign)} {campaign.label!r}.'
    )


def _explain_cut(cluster: ClusterData, job: orm.ProcessNode) -> Iterator[Section]:
    """Tell of the snapshot that a cluster was cut from, of what graded it, and of the other candidates."""
    inputs = read_inputs(job)
    step = cluster.base.attributes.get('step', None)
    frames = find_frames(inputs)
    told = [_tell_origin(cluster, frames)]
    walk = find_walk(job)
    if walk is not None:
        campaign, call = walk
        whose = (
            'a walker that had run to its end, in the audit of' if call.walker is None else f'walker {call.walker} in'
        )
        told.append(f'It was {whose} round {call.round} of {_name(campaign)} {campaign.label!r}.'.strip())
    told += _tell_surroundings(cluster, frames, step)
    yield Section('Where it was taken' if cluster.is_whole else 'Where it was cut', tuple(told))

    ignorant = (*_tell_model(find_grader(inputs)), *_tell_grade(cluster, inputs))
    yield Section('Which model was ignorant', ignorant)
    if walk is not None and walk[1].stage is Stage.EXPLORE:
        yield Section('Who else was a candidate', tuple(_tell_selection(cluster, *walk)))


def _tell_origin(cluster: ClusterData, frames: orm.Data) -> str:
    """Tell what made the frame that a cluster was cut from."""
    step = cluster.base.attributes.get('step', None)
    md = find_md(frames, step)
    if md is not None:
        return f'The snapshot is that of {_name(md)}{_at(md, step)}.'
    number = find_candidate(cluster)
    if number is None:
        return f'The snapshots are {_name(frames)}; what made them is not in the graph.'
    place = frames.get_atoms(number).info['set_index']
    whole, screening = _name(frames.creator.inputs.structures), frames.creator.caller
    by = '' if screening is None else f' in {_name(screening)}'
    return f'The snapshot is structure {place} of {whole}, candidate {number}{by}, both counted from 0.'


def _at(md: orm.ProcessNode, step: int | None) -> str:
    """Return step and temperature, as far as they are known."""
    if step is None:
        return ''
    text = f' at step {step}'
    if 'series' not in md.outputs:
        return text
    series = md.outputs.series
    if 'temp' in series.get_arraynames():
        steps = series.get_array('step')
        nearest = int(np.argmin(np.abs(steps - step)))
        text += f', where the temperature was {series.get_array("temp")[nearest]:.0f} K'
        text += '' if steps[nearest] == step else f' (at step {steps[nearest]})'
    return text


def _tell_surroundings(cluster: ClusterData, frames: orm.Data, step: int | None) -> Iterator[str]:
    cell = _describe_surroundings(cluster.get_ase(), 0)
    centre = cluster.base.attributes.get('center_parent_index')
    if not isinstance(frames, StructureSetData):
        yield f'The frames stayed in {_name(frames)}, where atom {centre} is the centre. In the cell it has {cell}.'
        return
    number = find_candidate(cluster)
    snapshot = next(
        atoms
        for place, atoms in enumerate(frames)
        if number in (None, place) and (step is None or atoms.info['step'] == step)
    )
    parent = _describe_surroundings(snapshot, centre)
    same = ', and so it has in the cell' if parent == cell else f'; in the cell it has {cell}'
    yield f'The centre is atom {centre} of {len(snapshot)}. In the snapshot it has {parent}{same}.'


def _describe_surroundings(atoms: Atoms, index: int) -> str:
    i, j, d = neighbor_list('ijd', atoms, _NEIGHBOURHOOD)
    near = d[i == index]
    if not len(near):
        return f'no neighbour within {_NEIGHBOURHOOD:g} Å'
    symbols, counts = np.unique(atoms.symbols[j[i == index]], return_counts=True)
    kinds = ' and '.join(f'{count} {symbol}' for symbol, count in zip(symbols, counts, strict=True))
    return f'{kinds} within {_NEIGHBOURHOOD:g} Å, the nearest at {near.min():.2f} Å'


def _tell_model(model: orm.Data) -> Iterator[str]:
    """Tell what a model is and what it was trained on."""
    creator = model.creator
    if creator is None:
        yield f'{_name(model)} was given by the user; what it was trained on is not in the graph.'
        return
    nested = read_inputs(creator)
    sets = nested.get('training') or nested.get('structures') or {}
    parts = [f'{_name(node)} ({_count(node.n_structures)})' for _, node in sorted(sets.items())]
    clusters = len(find_clusters(list(sets.values())))
    of_clusters = f'; {clusters} of these were clusters' if clusters else '; none of these was a cluster'
    on = f' from {", ".join(parts)}{of_clusters}' if parts else ''
    yield f'{_name(model)} was made by {_name(creator)}{on}.'
    results = creator.outputs.results.get_dict() if 'results' in creator.outputs else {}
    error = (results.get('validation') or {}).get('force_rmse')
    if error is not None:
        where = (
            'structures that were held out of its training'
            if isinstance(model, MaceModelData)
            else 'the validation set'
        )
        yield f'Its force error on {where} was {error:.1f} meV/Å.'


def _tell_grade(cluster: ClusterData, inputs: dict[str, Any]) -> Iterator[str]:
    get = cluster.base.attributes.get
    if (gamma := get('gamma_parent', None)) is not None:
        again = get('gamma_cluster', None)
        repeated = '' if again is None else f'; in the cell to be labelled it is {again:.2f}'
        yield f'The extrapolation grade γ of the centre was {gamma:.2f} in the snapshot{repeated}.'
        limits = Thresholds.load(inputs['thresholds'].get_dict() if 'thresholds' in inputs else {})
        yield (
            f'Atoms above γ = {limits.gamma_select:g} are worth learning, MD halts above {limits.gamma_break:g}, and '
            f'frames above {limits.gamma_ceiling:g} are not physical.'
        )
    if (score := get('score', None)) is not None:
        threshold = get('score_threshold', None)
        known = '' if threshold is None else f', known atoms stay below {threshold:.3g}'
        yield f'The score of the centre, by which the models of the ensemble disagree, was {score:.3g}{known}.'


def _tell_selection(cluster: ClusterData, campaign: orm.WorkChainNode, call: Call) -> Iterator[str]:
    select = _called(campaign, Call(Stage.SELECT, call.round))
    if select is None or 'selection' not in select.outputs:
        yield 'Nothing was chosen in that round yet.'
        return
    selection = select.outputs.selection.get_dict()
    names = {node.uuid: key for key, node in select.inputs.candidates.items()}
    mine, decisions = names.get(cluster.uuid), selection['decisions']
    taken = [key for key, decision in decisions.items() if decision['taken']]
    yield (
        f'{_name(select)} chose {len(taken)} of {len(decisions)} candidates of that round, one after the other: what '
        'is taken counts as known when the next one is graded.'
    )
    for key, decision in sorted(decisions.items(), key=lambda item: (item[0] != mine, item[0])):
        what = 'This one' if key == mine else f'{_name(select.inputs.candidates[key])} ({key})'
        grade = f', γ = {decision["gamma"]:.2f}' if decision.get('gamma') is not None else ''
        yield f'{what}{grade}, was {"taken" if decision["taken"] else "left out"}: {decision["reason"]}.'


def _called(campaign: orm.WorkChainNode, call: Call) -> orm.ProcessNode | None:
    """Return what a campaign called by a label; the last, if the machine ended others."""
    links = campaign.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all()
    found = sorted((link.node for link in links if link.link_label == str(call)), key=lambda node: node.ctime)
    return found[-1] if found else None


def _tell_label(cluster: orm.StructureData, core: NDArray[np.bool_]) -> Iterator[str]:
    """Tell where a cluster or another structure stands in the queue, what its label says and what learned it."""
    extra = cluster.base.extras.get(EXTRA, None)
    if extra is None or extra['node'] != cluster.uuid:
        yield 'It is not in the queue: nobody asked for its label.'
        return
    entry = Entry.from_extra(extra)
    by = f'; its level of theory is {entry.theory}' if entry.theory else ''
    askers = _name_askers(entry)
    asked = f'; its label was asked for by {askers}' if askers else ''
    yield f'In the queue it is the entry {entry.key[:10]}, {entry.status.value}{by}{asked}.'
    if entry.reason:
        yield f'The last attempt failed: {entry.reason}'
    if entry.status is not QueueStatus.LABELLED or entry.label is None:
        return
    labels = orm.load_node(entry.label)
    atoms = next(atoms for atoms in labels if atoms.info[QUEUE_KEY] == entry.key)
    forces = np.linalg.norm(atoms.arrays[FORCES], axis=1)
    told = f'largest force {forces.max():.3f} eV/Å'
    if isinstance(cluster, ClusterData):
        told = f'force on the centre {forces[0]:.3f} eV/Å, largest force on a core atom {forces[core].max():.3f} eV/Å'
    yield f'Its label in {_name(labels)}: energy {atoms.info[ENERGY]:.4f} eV, {told}.'
    yield from _tell_judgement(labels, entry.key, core, has_centre=isinstance(cluster, ClusterData))
    yield from _tell_students(labels)


def _count(structures: int) -> str:
    return f'{structures} structure{"" if structures == 1 else "s"}'


def _name_askers(entry: Entry) -> str:
    query = orm.QueryBuilder().append(orm.ProcessNode, filters={'uuid': {'in': list(entry.campaigns)}})
    nodes = {node.uuid: node for node in query.all(flat=True)} if entry.campaigns else {}
    found = [nodes[uuid] for uuid in entry.campaigns if uuid in nodes]
    return ' and '.join(f'{_name(node)} {node.label!r}' if node.label else _name(node) for node in found)


def _tell_judgement(labels: StructureSetData, key: str, core: NDArray[np.bool_], *, has_centre: bool) -> Iterator[str]:
    """Tell how wrong the model was that drove the walker, if a job has compared it with the label."""
    judged = find_judged(labels)
    atoms = next((atoms for atoms in judged or () if atoms.info[QUEUE_KEY] == key), None)
    if judged is None or atoms is None:
        return
    errors, whom = atoms.arrays[ERROR], find_grader(read_inputs(judged.creator))
    rms = float(np.sqrt(np.mean(errors[core] ** 2)))
    centre = f'was off by {errors[0]:.3f} eV/Å on the centre, on core atoms' if has_centre else 'was off'
    yield (
        f'The force of {_name(whom)}, which drove the walker, {centre} by {rms:.3f} '
        f'{"" if has_centre else "eV/Å "}(root mean square of the lengths) and by {errors[core].max():.3f} at most.'
    )


def _tell_students(labels: StructureSetData) -> Iterator[str]:
    """Tell which model learned labels first."""
    first = find_first_student(labels)
    if first is None:
        yield 'No potential has been trained on it yet.'
        return
    yield f'{_name(first)} was the first that learned it.'


def _explain_labels(labels: StructureSetData) -> Iterator[Section]:
    clusters = [cluster for _, cluster in find_clusters([labels])]
    if ENERGY not in labels.base.attributes.get('properties') and not clusters:
        raise OodalError(f'{_name(labels)} has no labels: ask about a cluster, a labelled set or a potential')
    creator = labels.creator
    by = 'was stored without a process' if creator is None else f'was made by {_name(creator)}{_tell_round(creator)}'
    yield Section(
        f'{_name(labels)}: {labels.n_structures} labelled structures',
        (f'It {by}; {len(clusters)} of the structures are clusters.', *_tell_students(labels)),
    )
    if clusters:
        yield Section('The clusters, and why each was labelled', tuple(_tell_each(clusters)))


def _tell_round(process: orm.ProcessNode) -> str:
    """Return in which round of which campaign a process ran; empty if in none."""
    walk = find_walk(process)
    if walk is None:
        return ''
    campaign, call = walk
    audit = 'the audit of ' if call.stage is Stage.AUDIT else ''
    when = f'in {audit}round {call.round}' if call.round else 'before the first round'
    return f', {when} of {_name(campaign)} {campaign.label!r}'


def _explain_model(model: PotentialData | MaceModelData) -> Iterator[Section]:
    yield Section(_name(model), tuple(_tell_model(model)))
    clusters = [each.cluster for each in find_learned(model)]
    if clusters:
        yield Section('The clusters that it learned, and why each was labelled', tuple(_tell_each(clusters)))


def _tell_each(clusters: Sequence[ClusterData]) -> Iterator[str]:
    """Tell in one line for each cluster why it was cut, the oldest first."""
    jobs = find_creators(clusters)
    inputs, walks = read_all_inputs(jobs.values()), find_walks(jobs.values())
    for cluster in sorted(clusters, key=lambda cluster: (cluster.ctime, cluster.uuid)):
        job = jobs.get(cluster.pk)
        if job is None:
            yield f'{_name(cluster)}: its past is not in the graph.'
            continue
        get = cluster.base.attributes.get
        gamma, score, step = get('gamma_parent', None), get('score', None), get('step', None)
        grade = f'γ = {gamma:.2f}' if gamma is not None else 'no grade' if score is None else f'score {score:.3g}'
        under = _name(find_grader(inputs[job.pk]))
        at, where = '' if step is None else f' at step {step}', ''
        if job.pk in walks:
            campaign, call = walks[job.pk]
            where = f' {f"of walker {call.walker} in" if call.walker else "in the audit of"} round {call.round}'
            where += f' of {_name(campaign)}'
        yield f'{_name(cluster)}: {grade} under {under} at atom {get("center_parent_index")}{at}{where}.'


def _name(node: orm.Node) -> str:
    label = getattr(node, 'process_label', None) or type(node).__name__
    return f'{label}<{node.pk}>'
