"""Engine command ``train-ace``: labelled sets in, an ACE potential with its active set out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import ACTIVE_SET_FILE, BASIS_FILE, RESULTS_FILE, TABULATED_FILE
from aiida_oodal.engine.labels import LABELLED_SET
from aiida_oodal.engine.linear.errors import compare, judge
from aiida_oodal.engine.linear.pairs import name_pairs
from aiida_oodal.engine.linear.targets import Target
from aiida_oodal.engine.structures import StructureSet

from .basis import AceBasis
from .check import check_elements, read_targets
from .files import read_ace_header
from .fit import AceFit, AcePotential, Learned, fit_ace
from .settings import AceFitSettings


@dataclass(frozen=True)
class _Part:
    """One labelled file: of the training data, or of what the potential is judged by."""

    name: str
    targets: list[Target]
    elements: tuple[str, ...]


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Fit a linear ACE potential on ``job['training']`` and judge it on everything that has labels.

    The job: ``training`` and ``anchors``, names of files of labelled sets by label, those to train on, of which packs
    are split, and those on which only errors are computed; ``validation``, one such file or
    null; ``learned``, the B-basis of the potential before, or null; ``settings``, :meth:`AceFitSettings.plain`;
    ``workers`` (1), processes for the design matrix.
    Writes :data:`BASIS_FILE`, :data:`TABULATED_FILE`, :data:`ACTIVE_SET_FILE` and :data:`RESULTS_FILE`.

    Errors in the results are those of the files as written: energies in meV/atom, forces in meV/angstrom, stresses in
    GPa. ``parts`` has an entry for each set, with its ``role`` (training, anchor or validation) and what :func:`judge`
    says of all its atoms, the buffer of clusters included; ``training`` is about the labels with a weight above 0.

    :raises OodalError: if a file, a label or a setting is missing, or no potential can be fitted to the data.
    """
    settings = _read_order(job)
    training = _read_training(job, folder, settings)
    known = {symbol for part in training.values() for symbol in part.elements}
    validation = _read_judged(folder, job['validation'], settings, known) if job.get('validation') else None
    anchors = {label: _read_judged(folder, name, settings, known) for label, name in job.get('anchors', {}).items()}
    learned = read_learned(folder / job['learned']) if job.get('learned') else None
    started, cpu = time.monotonic(), time.process_time()
    targets = [target for part in training.values() for target in part.targets]
    print(f'{len(targets)} structures, {sum(len(target.atoms) for target in targets)} atoms', flush=True)
    fit = fit_ace(
        targets,
        settings,
        learned=learned,
        workers=int(job.get('workers', 1)),
        report=lambda line: print(line, flush=True),
    )
    written = _write(fit, folder)
    parts = [(label, 'training', part) for label, part in training.items()]
    parts += [(label, 'anchor', part) for label, part in anchors.items()]
    parts += [] if validation is None else [('validation', 'validation', validation)]
    compared = {label: compare(written, part.targets) for label, _, part in parts}
    judged = {label: {'role': role} | judge(compared[label]) for label, role, _ in parts}
    results = _describe(fit, settings) | {
        'training': judge([each for label in training for each in compared[label]], fitted_only=True),
        'validation': judged.get('validation'),
        'parts': judged,
        'cpu_seconds': time.process_time() - cpu,
    }
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1), encoding='utf-8')
    print(f'fitted in {time.monotonic() - started:.1f} s: {_summary(results)}', flush=True)


def read_learned(source: Path | str) -> Learned:
    """Read from a B-basis (path, or text of the file) the size, cutoff and atom energies that a new potential keeps."""
    header = read_ace_header(source)
    return Learned(max(header.number_of_functions.values()), header.cutoff, header.atom_energies)


def _read_order(job: Mapping[str, Any]) -> AceFitSettings:
    """Return the settings of a job whose files have names."""
    for key in ('training', 'settings'):
        if not job.get(key):
            raise OodalError(f'the train-ace job lacks {key!r}: it needs "training" (files by label) and "settings"')
    names = job['training']
    if not isinstance(names, Mapping) or len(set(names.values())) != len(names):
        raise OodalError(f'"training" must give different files by label, got {names!r}')
    return AceFitSettings.read(job['settings'])


def _read_training(job: Mapping[str, Any], folder: Path, settings: AceFitSettings) -> dict[str, _Part]:
    """Read the labelled sets to train on, those of packs each by itself, with the weights that the settings give."""
    sets = [
        (label, _Part(name, read_targets(name, structures, settings), structures.symbols))
        for key, name in job['training'].items()
        for label, structures in StructureSet.load(folder / name).split(LABELLED_SET, key).items()
    ]
    names = [label for label, _ in sets] + [*job.get('anchors', {}), 'validation']
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OodalError(f'{", ".join(twice)}: each training set and anchor needs a label of its own')
    if unknown := sorted(set(settings.part_weights) - {label for label, _ in sets}):
        known = ', '.join(sorted(label for label, _ in sets))
        raise OodalError(f'part_weights: {unknown[0]!r} is no training set; there are {known}')
    return {label: _weigh(label, part, settings) for label, part in sets}


def _read_judged(folder: Path, name: str, settings: AceFitSettings, known: set[str]) -> _Part:
    """Read one labelled set that is not trained on.

    :param known: elements of the training data.
    :raises OodalError: if it is empty, a structure lacks its label, or it has other elements.
    """
    structures = StructureSet.load(folder / name)
    check_elements(name, structures.symbols, known)
    return _Part(name, read_targets(name, structures, settings), structures.symbols)


def _weigh(label: str, part: _Part, settings: AceFitSettings) -> _Part:
    """Return a part of the training data whose labels weigh what the settings say."""
    weight = settings.part_weights.get(label, 1.0)
    return replace(part, targets=[target.scaled(weight) for target in part.targets])


def _write(fit: AceFit, folder: Path) -> AcePotential:
    """Write the potential, and return it as read back from the file, so that errors are those that MD has."""
    fitted = fit.potential
    fitted.basis.save(folder / BASIS_FILE, fitted.atom_energies.values)
    fitted.save_active_set(folder / ACTIVE_SET_FILE)
    written = AcePotential(AceBasis.from_file(folder / BASIS_FILE), fitted.active_sets, fitted.atom_energies)
    written.basis.save_tabulated(folder / TABULATED_FILE)
    return written


def _describe(fit: AceFit, settings: AceFitSettings) -> dict[str, Any]:
    """Say what was fitted, and how it came about."""
    potential = fit.potential
    basis, energies = potential.basis, potential.atom_energies
    return {
        'elements': list(basis.elements),
        'cutoff': basis.cutoff,
        'number_of_functions': dict(zip(basis.elements, basis.sizes, strict=True)),
        'n_environments': {name: chosen.n_environments for name, chosen in potential.active_sets.items()},
        'rank': {name: chosen.rank for name, chosen in potential.active_sets.items()},
        'settings': settings.plain(),
        'atom_energies': dict(energies.values),
        'atom_energies_from': dict(energies.sources),
        'size': fit.reason,
        'versions': {'python-ace': version('python-ace')},
        'growth': [
            asdict(step.form) | {'force_rmse': 1000.0 * step.force_rmse, 'kept': step.kept} for step in fit.steps
        ],
        'core_distances': {name_pairs([pair]): distance for pair, distance in fit.cores.items()},
        'unmet_pairs': [name_pairs([pair]) for pair in fit.unmet_pairs],
    }


def _summary(results: Mapping[str, Any]) -> str:
    """Say in one line how good the potential is."""
    judged = results['validation'] or results['training']
    kind = 'validation' if results['validation'] else 'training'
    return (
        f'{kind} force RMSE {judged["force_rmse"]:.1f} meV/angstrom, largest gamma {judged["max_gamma"]:.2f}; '
        f'{results["size"]}'
    )
