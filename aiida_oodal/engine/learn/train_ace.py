"""Engine command ``train-ace``: labelled sets in, an ACE potential with its active set out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_basis import AceBasis, AceFitValues
from aiida_oodal.engine.learn.ace_fit import AceFit, fit_ace
from aiida_oodal.engine.learn.ace_targets import Target, make_target, named
from aiida_oodal.engine.learn.metrics import energy_errors, force_errors
from aiida_oodal.engine.structures import StructureSet

BASIS_FILE = 'potential.yaml'
TABULATED_FILE = 'potential.yace'
ACTIVE_SET_FILE = 'active_set.asi'
RESULTS_FILE = 'results.json'
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """One labelled file of the training data, or the validation data."""

    name: str
    targets: list[Target]


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Fit a linear ACE potential on ``job['training']`` and judge it on ``job['validation']``.

    The job: ``training``, names of labelled structure sets; ``validation``, one such name or null; ``settings``,
    ``AceFitSettings(...).model_dump(mode='json')``; ``workers`` (1), processes for the design matrix. Writes
    :data:`BASIS_FILE`, :data:`TABULATED_FILE`, :data:`ACTIVE_SET_FILE` and :data:`RESULTS_FILE`. Errors in the results
    are those of the files as written: energies in meV/atom, forces in meV/angstrom.

    :raises OodalError: if a file, a label or a setting is missing, or the data does not carry so many functions.
    """
    values = _settings(job)
    parts = [_read_part(folder, name, values) for name in job['training']]
    validation = _read_part(folder, job['validation'], values) if job.get('validation') else None
    _check_elements(parts, validation)
    started = time.monotonic()
    targets = [target for part in parts for target in part.targets]
    print(f'{len(targets)} structures, {sum(len(target.atoms) for target in targets)} atoms', flush=True)
    fit = fit_ace(targets, values, workers=int(job.get('workers', 1)), report=lambda line: print(line, flush=True))
    fit.basis.save(folder / BASIS_FILE)
    fit.save_active_set(folder / ACTIVE_SET_FILE)
    # Judge what was written, as MD will read it, and not the numbers that happen to be in memory.
    written = AceFit(AceBasis.from_file(folder / BASIS_FILE), fit.inverse_active_set, fit.n_environments)
    written.basis.save_tabulated(folder / TABULATED_FILE)
    compared = {part.name: _compare(part, written, fitted_only=True) for part in parts}
    results = {
        'elements': list(written.basis.elements),
        'cutoff': written.basis.cutoff,
        'number_of_functions': dict(zip(written.basis.elements, written.basis.sizes, strict=True)),
        'n_environments': fit.n_environments,
        'settings': values,
        'training': _judge([each for comparisons in compared.values() for each in comparisons]),
        'training_parts': [{'file': name} | _judge(comparisons) for name, comparisons in compared.items()],
        'validation': None if validation is None else _judge(_compare(validation, written, fitted_only=False)),
    }
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1), encoding='utf-8')
    print(f'fitted in {time.monotonic() - started:.1f} s: {_summary(results)}', flush=True)


def _check_elements(parts: Sequence[_Part], validation: _Part | None) -> None:
    """Refuse validation data with elements that the potential will not know, before the fit and not after it."""
    known, asked = (
        {symbol for part in group for target in part.targets for symbol in target.atoms.get_chemical_symbols()}
        for group in (parts, [] if validation is None else [validation])
    )
    if validation is not None and not asked <= known:
        raise OodalError(
            f'{validation.name} has {" ".join(sorted(asked - known))}, which the training data '
            f'({" ".join(sorted(known))}) lack: train on these elements too, or choose other validation data'
        )


def _settings(job: Mapping[str, Any]) -> AceFitValues:
    """Return the settings of a job, complete or not at all: defaults belong to ``AceFitSettings`` on the host."""
    for key in ('training', 'settings'):
        if not job.get(key):
            raise OodalError(f'the train-ace job lacks {key!r}: it needs "training" (a list of files) and "settings"')
    names = job['training']
    if isinstance(names, str) or len(set(names)) != len(names):
        raise OodalError(f'"training" must be a list of different files, got {names!r}')
    missing = [name for name in AceFitValues.__annotations__ if name not in job['settings']]
    if missing:
        raise OodalError(
            f'settings of the train-ace job lack {", ".join(missing)}: '
            "write what AceFitSettings(...).model_dump(mode='json') gives"
        )
    return cast(AceFitValues, dict(job['settings']))


def _read_part(folder: Path, name: str, values: AceFitValues) -> _Part:
    """Read one labelled set.

    :raises OodalError: if it is empty or a structure lacks its label.
    """
    structures = StructureSet.load(folder / name)
    if len(structures) == 0:
        raise OodalError(f'{name}: the set is empty; leave it out of the job')
    return _Part(
        name, [make_target(atoms, values, f'{name}: structure {index}') for index, atoms in enumerate(structures)]
    )


@dataclass(frozen=True)
class _Comparison:
    """One structure under a potential; only what may be compared is kept.

    :param energies: predicted, reference (eV) and number of atoms; shape ``(1, 3)``, or ``(0, 3)`` without a say.
    :param predicted_forces: shape ``(n_compared, 3)``, eV/angstrom.
    :param forces: shape ``(n_compared, 3)``, eV/angstrom.
    :param max_gamma: the largest gamma of all its atoms.
    """

    n_atoms: int
    n_core: int
    energies: FloatArray
    predicted_forces: FloatArray
    forces: FloatArray
    max_gamma: float


def _compare(part: _Part, fit: AceFit, *, fitted_only: bool) -> list[_Comparison]:
    """Evaluate a potential on a labelled set.

    :param fitted_only: compare only what weighed in the fit (buffer atoms that weigh nothing have no say).
    """
    comparisons = []
    for target in part.targets:
        with named(target):
            prediction = fit.basis.predict(target.atoms)
        n_atoms = len(target.atoms)
        has_energy = target.energy_weight > 0.0 or not fitted_only
        kept = target.force_weights > 0.0 if fitted_only else np.ones(n_atoms, dtype=bool)
        energies = np.array([[prediction.energy, target.energy * n_atoms, n_atoms]])
        comparisons.append(
            _Comparison(
                n_atoms=n_atoms,
                n_core=int(target.core.sum()),
                energies=energies if has_energy else energies[:0],
                predicted_forces=prediction.forces[kept],
                forces=target.forces[kept],
                max_gamma=float(fit.gamma(target.atoms, prediction.projections).max()),
            )
        )
    return comparisons


def _judge(comparisons: Sequence[_Comparison]) -> dict[str, Any]:
    """Summarise comparisons: counts, errors, largest gamma."""
    n_atoms = sum(each.n_atoms for each in comparisons)
    n_core = sum(each.n_core for each in comparisons)
    energies = np.concatenate([each.energies for each in comparisons])
    return {
        'n_structures': len(comparisons),
        'n_atoms': n_atoms,
        'n_core_atoms': n_core,
        'core_fraction': n_core / n_atoms,
        'n_energies': len(energies),
        'max_gamma': max(each.max_gamma for each in comparisons),
        **energy_errors(*energies.T),
        **force_errors(
            np.concatenate([each.predicted_forces for each in comparisons]),
            np.concatenate([each.forces for each in comparisons]),
        ),
    }


def _summary(results: Mapping[str, Any]) -> str:
    """Say in one line how good the potential is."""
    judged = results['validation'] or results['training']
    kind = 'validation' if results['validation'] else 'training'
    return f'{kind} force RMSE {judged["force_rmse"]:.1f} meV/angstrom, largest gamma {judged["max_gamma"]:.2f}'
