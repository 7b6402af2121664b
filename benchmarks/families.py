"""Families of potentials that the benchmark of healing trains, each by the training job of the engine.

A family trains on labelled sets, one for each round, and says how far the potential is from other labelled sets. What
it returns drives MD and grades clusters by :func:`.open_forces` and :func:`.open_grader`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from aiida_oodal.engine.ace import train as ace
from aiida_oodal.engine.ace.basis import AceBasis
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.files import ACTIVE_SET_FILE, BASIS_FILE, RESULTS_FILE
from aiida_oodal.engine.labels import FORCES
from aiida_oodal.engine.metrics import force_errors
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.workchains.protocols import load_protocol

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
        with contextlib.redirect_stdout(io.StringIO()):
            ace.run_job(job, folder)
        results = json.loads((folder / RESULTS_FILE).read_text(encoding='utf-8'))
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
