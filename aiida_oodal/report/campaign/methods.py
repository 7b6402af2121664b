"""The paragraph on methods that a paper on a potential needs, from what is in the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiida import orm

from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.files import LOG_FILE
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.workchains.calls import Stage

from .about import describe_theory, get_atoms
from .citations import Citation, References
from .history import CampaignHistory
from .ledger import AUDIT, CLUSTERS, INITIAL, Ledger, Ran

_LAMMPS = re.compile(r'LAMMPS \((.+?)\)')
_FEMTO = 1000.0
#: What was done to atoms of the buffer that overlapped across the new boundary, by the attribute that counts them.
_REPAIRS = {'repair_dropped': 'left out', 'repair_moved': 'moved apart'}


@dataclass(frozen=True)
class Methods:
    """A paragraph, and the list of references for the numbers in it."""

    text: str
    references: tuple[Citation, ...]


def write_methods(
    campaign: orm.WorkChainNode, history: CampaignHistory, ledger: Ledger, processes: Sequence[Ran]
) -> Methods:
    """Say in a paragraph how a campaign was run; what is not in the graph is left out.

    :param processes: of :func:`.list_processes`.
    """
    references = References()
    versions = _read_versions(processes, Stage.TRAIN, Stage.RETRAIN)
    sentences = [
        *_tell_framework(campaign, references),
        *_tell_model(campaign, history, versions, references),
        *_tell_walkers(campaign, processes, references),
        *_tell_carving(campaign, history),
        *_tell_labels(campaign, history, ledger, processes, references),
        *_tell_outcome(campaign, history),
    ]
    return Methods(' '.join(sentences), references.cited)


def _read_versions(processes: Sequence[Ran], *stages: Stage) -> dict[str, str]:
    """Return the versions of packages that the jobs of some stages ran with."""
    found: dict[str, str] = {}
    for ran in processes:
        if ran.call.stage in stages and isinstance(ran.process, orm.CalcJobNode):
            results = ran.process.outputs.results if 'results' in ran.process.outputs else {}
            found |= dict(results['versions']) if 'versions' in results else {}
    return found


def _tell_version(versions: Mapping[str, str], package: str) -> str:
    """Return a version with a blank before it; empty if it is not known."""
    return f' {versions[package]}' if package in versions else ''


def _tell_framework(campaign: orm.WorkChainNode, references: References) -> Iterator[str]:
    versions = campaign.base.attributes.get('version', {})
    ours, aiida = (_tell_version(versions, name) for name in ('plugin', 'core'))
    yield (
        f'Interatomic potentials were trained by active learning with aiida-oodal{ours} and AiiDA{aiida} '
        f'{references.cite("aiida")}, which keeps the provenance of every number (campaign {campaign.uuid}).'
    )


def _tell_model(
    campaign: orm.WorkChainNode, history: CampaignHistory, versions: Mapping[str, str], references: References
) -> Iterator[str]:
    results = history.trainings[-1] if history.trainings else {}
    if campaign.inputs.train.workflow.value == 'oodal.train.mace':
        package = f' (mace-torch {versions["mace-torch"]})' if 'mace-torch' in versions else ''
        yield (
            f'In each round an ensemble of MACE models {references.cite("mace")} was trained{package}, which differ in '
            'the seed of their training.'
        )
    elif 'number_of_functions' in results:
        package = f' with python-ace {versions["python-ace"]}' if 'python-ace' in versions else ''
        sizes = ', '.join(f'{count} for {element}' for element, count in results['number_of_functions'].items())
        yield (
            f'In each round a linear atomic cluster expansion {references.cite("ace")} was fitted{package} to all '
            f'labels so far; the last one has a cutoff of {results["cutoff"]:g} Å, and its number of basis functions '
            f'is {sizes}.'
        )
    else:
        yield f'In each round a potential was trained on all labels so far ({campaign.inputs.train.workflow.value}).'


def _tell_walkers(campaign: orm.WorkChainNode, processes: Sequence[Ran], references: References) -> Iterator[str]:
    """Tell of MD, and of the grade that ends it."""
    shared = _get_settings(campaign, 'md')
    walkers, every = [], set()
    for name, walker in sorted(campaign.inputs.walkers.items()):
        values = {**shared, **(walker['settings'].get_dict() if 'settings' in walker else {})}
        formula = get_atoms(walker['structure']).get_chemical_formula()
        told = f'{name}: {formula}'
        if 'temperature' in values:
            settings = MdSettings(**values)
            every.add(settings.gamma_every)
            told += f', {_describe_md(settings)}'
        walkers.append(told)
    starts = {walker['structure'].uuid for walker in campaign.inputs.walkers.values()}
    version = _find_lammps(processes)
    yield (
        f'Molecular dynamics was run in LAMMPS{f" ({version})" if version else ""} {references.cite("lammps")} from '
        f'{len(starts)} initial structure{"s" if len(starts) > 1 else ""} by {len(walkers)} '
        f'walker{"s" if len(walkers) > 1 else ""} ({"; ".join(walkers)}).'
    )
    limits = Thresholds.load(campaign.inputs.thresholds.get_dict() if 'thresholds' in campaign.inputs else {})
    steps = ' or '.join(str(number) for number in sorted(every)) or 'few'
    if campaign.inputs.train.workflow.value == 'oodal.train.mace':
        grade = (
            'the disagreement γ of the models about each atom was computed, in units of the threshold that structures '
            'like the training data stay below'
        )
    else:
        grade = (
            f'the extrapolation grade γ of each atom {references.cite("d_optimality", "active_learning")} was computed'
        )
    yield (
        f'Every {steps} steps {grade}; a run was halted when the largest γ exceeded {limits.gamma_break:g}, and frames '
        f'with γ above {limits.gamma_ceiling:g} were taken for unphysical.'
    )


def _get_settings(campaign: orm.WorkChainNode, stage: str) -> dict[str, Any]:
    """Return the settings that a campaign gave to a stage."""
    inputs = campaign.inputs
    given: dict[str, Any] = inputs[stage].settings.get_dict() if stage in inputs and 'settings' in inputs[stage] else {}
    return given


def _describe_md(settings: MdSettings) -> str:
    temperature = settings.temperature
    ends = temperature if isinstance(temperature, tuple) else (temperature,)
    pressure = f' and {settings.pressure:g} bar' if settings.ensemble == 'npt' else ''
    return (
        f'{settings.ensemble.upper()} at {" to ".join(f"{end:g}" for end in ends)} K{pressure}, {settings.steps} steps '
        f'of {_FEMTO * settings.timestep_ps:g} fs'
    )


def _find_lammps(processes: Sequence[Ran]) -> str | None:
    """Return what LAMMPS calls its version, from the last log that has it."""
    for ran in reversed(processes):
        if ran.process.process_label != 'MdCalculation' or 'retrieved' not in ran.process.outputs:
            continue
        files = ran.process.outputs.retrieved.base.repository
        if LOG_FILE in files.list_object_names():
            with files.open(LOG_FILE, 'r') as stream:
                match = _LAMMPS.match(stream.readline())
            if match is not None:
                return match[1]
    return None


def _tell_carving(campaign: orm.WorkChainNode, history: CampaignHistory) -> Iterator[str]:
    carve = CarveSettings.load(_get_settings(campaign, 'carve'))
    select = SelectSettings.load(_get_settings(campaign, 'select'))
    shape = 'cubes of bulk density' if carve.shape == 'cube' else 'spheres in vacuum'
    clusters = [cluster for _, _, cluster in history.list_labelled()]
    is_mixed = any(cluster.is_whole for cluster in clusters)
    repairs = [
        done for key, done in _REPAIRS.items() if any(cluster.base.attributes.get(key, 0) for cluster in clusters)
    ]
    if clusters and all(cluster.is_whole for cluster in clusters):
        yield (
            f'Frames with atoms of large γ, of at most {carve.whole_atoms} atoms, were taken whole, at most '
            f'{select.max_clusters} of a round.'
        )
        return
    repair = f', of which atoms that overlap across the new boundary were {_join(repairs)}' if repairs else ''
    yield (
        f'Around up to {carve.centres_per_snapshot} atoms with the largest γ of a frame, periodic cells ({shape}) were '
        f'cut out, with a core of radius {carve.radius:g} Å and a buffer of {carve.buffer:g} Å{repair}; at most '
        f'{select.max_clusters} of the cells of a round were chosen to be labelled.'
        + (f' Frames of at most {carve.whole_atoms} atoms were taken whole.' if is_mixed else '')
    )


def _tell_labels(
    campaign: orm.WorkChainNode,
    history: CampaignHistory,
    ledger: Ledger,
    processes: Sequence[Ran],
    references: References,
) -> Iterator[str]:
    labeller = campaign.inputs.label.workflow.value
    theory = describe_theory(history) or 'the labeller'
    program = ''
    if labeller == 'oodal.label.ase':
        versions = _read_versions(processes, Stage.LABEL, Stage.AUDIT)
        program = f', through ASE{_tell_version(versions, "ase")} {references.cite("ase")}'
        others = [f'{name} {versions[name]}' for name in sorted(set(versions) - {'ase'})]
        program += f' with {_join(others)}' if others else ''
    elif labeller == 'oodal.label.pw':
        program = f', with Quantum ESPRESSO{_find_pw(processes)} {references.cite("quantum_espresso")}'
    yield f'Energies, forces and stresses are those of {theory}{program}.'
    counts = {row.what: row for row in ledger.rows if row.n_structures}
    has_whole = any(cluster.is_whole for _, _, cluster in history.list_labelled())
    told = [
        f'{counts[what].n_structures} {words} ({counts[what].n_atoms} atoms)'
        for what, words in (
            (INITIAL, 'initial structures'),
            (CLUSTERS, 'cells that walkers led to' if has_whole else 'cut cells'),
            (AUDIT, 'structures from the ends of completed runs'),
        )
        if what in counts
    ]
    if told:
        yield f'In {len(history.rounds)} rounds {_join(told)} were labelled.'


def _find_pw(processes: Sequence[Ran]) -> str:
    """Return the version of pw.x, with a blank before it; empty if it is not known."""
    for ran in reversed(processes):
        if ran.process.process_label == 'PwCalculation' and 'output_parameters' in ran.process.outputs:
            version = ran.process.outputs.output_parameters.get_dict().get('creator_version')
            if version:
                return f' {version}'
    return ''


def _tell_outcome(campaign: orm.WorkChainNode, history: CampaignHistory) -> Iterator[str]:
    errors = [entry['validation']['force_rmse'] for entry in history.trainings if entry.get('validation')]
    if 'validation' in campaign.inputs and errors:
        first = f'{errors[0]:.0f} to ' if len(errors) > 1 else ''
        yield (
            f'On {campaign.inputs.validation.n_structures} structures that no potential was trained on, the RMSE of '
            f'the force components {"went from" if first else "is"} {first}{errors[-1]:.0f} meV/Å.'
        )
    if not campaign.is_terminated:
        yield 'The campaign has not ended yet.'
    elif history.healed:
        yield 'With the last potential all runs reached their last step without a halt.'
    else:
        reason = history.state.partition(':')[0].rstrip('.')  # what follows says how to go on
        yield f'Not all runs reached their last step when the campaign ended: {reason}.'


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f'{", ".join(words[:-1])} and {words[-1]}'
