"""Families of potentials that the benchmark of healing trains, each by the training job of the engine.

A family trains on labelled sets, one for each round, and says how far the potential is from other labelled sets. What
it returns drives MD and grades clusters by :func:`.open_forces` and :func:`.open_grader`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from aiida_oodal.engine.ace import train as ace
from aiida_oodal.engine.ace.basis import AceBasis
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.content import choose_heldout
from aiida_oodal.engine.files import ACTIVE_SET_FILE, BASIS_FILE, MODEL_FILE, REFERENCE_FILE, RESULTS_FILE
from aiida_oodal.engine.labels import FORCES
from aiida_oodal.engine.mace import latents_job
from aiida_oodal.engine.mace.latents_settings import LatentsSettings
from aiida_oodal.engine.mace.train import job as mace
from aiida_oodal.engine.mace.train.judge import compare, summarise
from aiida_oodal.engine.mace.train.labels import read_part
from aiida_oodal.engine.mace.train.settings import MaceTrainSettings
from aiida_oodal.engine.metrics import force_errors
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.workchains.protocols import load_protocol

#: Of MACE models, angstrom.
MACE_CUTOFF = 4.2
#: Least `force_mask` of an atom that is learned.
CORE = 0.5
#: A labelled set by its name.
Sets = Mapping[str, Sequence[Atoms]]


@dataclass(frozen=True)
class Trained:
    """A potential.

    :param learned: as :func:`.open_forces` takes it, with absolute paths.
    :param cutoff: angstrom.
    :param parts: errors on the sets that it was judged by, by their names.
    """

    learned: dict[str, Any]
    cutoff: float
    parts: dict[str, dict[str, Any]]


class Family(Protocol):
    """What trains potentials of one kind."""

    def train(self, folder: Path, training: Sets, judged: Sets, weights: str, before: Trained | None) -> Trained:
        """Train in a new folder.

        :param training: what to learn.
        :param judged: what to compute errors on.
        :param weights: ``full`` or ``mask``.
        :param before: the potential of the round before.
        """

    def force_error(self, trained: Trained, folder: Path, frames: Sequence[Atoms]) -> float:
        """Return the force RMSE on labelled structures, meV/angstrom; the folder is new."""


def save(folder: Path, sets: Sets) -> dict[str, str]:
    """Write sets as files of a job, and return their names."""
    names = {label: f'{label.replace(" ", "_")}.npz' for label in sets}
    for label, frames in sets.items():
        StructureSet.from_atoms(frames).save(folder / names[label])
    return names


def run_quietly(
    run_job: Callable[[Mapping[str, Any], Path], None], job: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Run a job of the engine, and return its results."""
    with contextlib.redirect_stdout(io.StringIO()):
        run_job(job, folder)
    results: dict[str, Any] = json.loads((folder / RESULTS_FILE).read_text(encoding='utf-8'))
    return results


class AceFamily:
    """Linear ACE by a protocol of `oodal.train.ace`; a new potential is never smaller than the one before."""

    def __init__(self, protocol: str, own: Mapping[str, Any]) -> None:
        self._settings = AceFitSettings(**{**load_protocol('train_ace', protocol), **own})

    def train(self, folder: Path, training: Sets, judged: Sets, weights: str, before: Trained | None) -> Trained:
        """Fit coefficients and active sets."""
        folder.mkdir()
        job = {
            'training': save(folder, training),
            'anchors': save(folder, judged),
            'learned': before.learned['yaml'] if before else None,
            'settings': replace(self._settings, weights=weights).plain(),
        }
        results = run_quietly(ace.run_job, job, folder)
        learned = {
            'kind': 'ace',
            'yaml': str(folder / BASIS_FILE),
            'active_set': str(folder / ACTIVE_SET_FILE),
            'elements': results['elements'],
        }
        return Trained(learned, results['cutoff'], {name: results['parts'][name] for name in judged})

    def force_error(self, trained: Trained, folder: Path, frames: Sequence[Atoms]) -> float:
        """Evaluate the potential as it was written."""
        basis = AceBasis.from_file(trained.learned['yaml'])
        predicted = np.concatenate([basis.predict(atoms).forces for atoms in frames])
        return force_errors(predicted, np.concatenate([atoms.arrays[FORCES] for atoms in frames]))['force_rmse']


class MaceFamily:
    """An ensemble of MACE models by the protocol `quick` of `oodal.train.mace`.

    The first model gives the forces, and errors are those of it; gamma is the disagreement of all.

    :param isolated: energy of an isolated atom of each element, eV.
    :param updates: of each training.
    :param n_models: of the ensemble.
    :param warm: whether a training starts from the models of the round before, and not from scratch.
    """

    def __init__(self, isolated: Mapping[str, float], updates: int, n_models: int, *, warm: bool = False) -> None:
        values = load_protocol('train_mace', 'quick')
        self._heldout = values['heldout_fraction']
        self._settings = MaceTrainSettings.load(
            {
                **values['settings'],
                'updates': updates,
                'device': 'cpu',
                'E0s': dict(isolated),
                'overrides': {'r_max': MACE_CUTOFF},
            }
        )
        self._elements, self._warm = sorted(isolated), warm
        self._seeds = {f'w{number}': number for number in range(1, n_models + 1)}

    def train(self, folder: Path, training: Sets, judged: Sets, weights: str, before: Trained | None) -> Trained:
        """Train one model for each seed, then fit the reference."""
        folder.mkdir()
        sets = self._split(training)
        names = save(folder, {**sets, **judged})
        job = {
            'training': [f'../{names["latents"]}'],
            'validation': f'../{names["heldout"]}',
            'settings': self._settings.model_copy(update={'weights': weights}).to_values(),
        }
        models = {}
        for label, seed in self._seeds.items():
            (folder / label).mkdir()
            start = {'start': before.learned['models'][label]} if before and self._warm else {}
            results = run_quietly(mace.run_job, {**job, 'seed': seed, **start}, folder / label)
            if results['outcome'] not in ('completed', 'no_improvement'):
                raise RuntimeError(f'{folder / label}: {results["outcome"]}: {results["message"]}')
            models[label] = str(folder / label / MODEL_FILE)
        latents = {name: self._embed(folder, name, sets[name], models) for name in sets}
        reference = OodReference.fit(**latents, settings={'metrics': ['aligned_variance']})
        np.savez(folder / REFERENCE_FILE, **reference.to_arrays())
        learned = {
            'kind': 'mace',
            'models': models,
            'reference': str(folder / REFERENCE_FILE),
            'elements': self._elements,
            'settings': {'device': 'cpu'},
        }
        return Trained(learned, MACE_CUTOFF, {name: self._judge(folder, names[name], learned) for name in judged})

    def force_error(self, trained: Trained, folder: Path, frames: Sequence[Atoms]) -> float:
        """Evaluate the model that gives the forces."""
        folder.mkdir(parents=True)
        return float(self._judge(folder, save(folder, {'frames': frames})['frames'], trained.learned)['force_rmse'])

    def _split(self, training: Sets) -> dict[str, list[Atoms]]:
        """Hold out a share of every set, as the WorkChain does."""
        parts: dict[str, list[Atoms]] = {'latents': [], 'heldout': []}
        for frames in training.values():
            heldout = choose_heldout(frames, self._heldout)
            for row, atoms in enumerate(frames):
                parts['heldout' if row in heldout else 'latents'].append(atoms)
        return parts

    @staticmethod
    def _embed(folder: Path, name: str, frames: Sequence[Atoms], models: Mapping[str, str]) -> EnsembleLatents:
        """Return the latents of the atoms that a set teaches: those of clusters that are core."""
        own = folder / f'embedded_{name}'
        own.mkdir()
        job = {
            'structures': f'../{name}.npz',
            'models': models,
            'settings': LatentsSettings.load({'device': 'cpu'}).plain(),
        }
        run_quietly(latents_job.run_job, job, own)
        return EnsembleLatents.open(own, list(models)).keep_atoms(
            np.concatenate([atoms.arrays.get('force_mask', np.ones(len(atoms))) >= CORE for atoms in frames])
        )

    @staticmethod
    def _judge(folder: Path, name: str, learned: Mapping[str, Any]) -> dict[str, Any]:
        model = next(iter(learned['models'].values()))
        return summarise(compare(Path(model), read_part(folder, name), batch_size=10, device='cpu'))
