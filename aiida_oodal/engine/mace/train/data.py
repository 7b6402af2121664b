"""The data of a training: checked, weighed, and written as ``mace_run_train`` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS
from aiida_oodal.engine.mace.models import MaceModel, open_model

from .labels import (
    ATOM_WEIGHTS,
    ENERGY_WEIGHT,
    STRESS_WEIGHT,
    Part,
    check_energies,
    find_isolated_energies,
    read_part,
    weigh_parts,
    write_frames,
)
from .loss import knows_atom_weights

__all__ = ['WORK_FOLDER', 'Data', 'prepare_data']

#: Where mace-torch puts checkpoints, logs and losses, beside the data; a later job goes on from there.
WORK_FOLDER = 'mace'
_TRAINING, _VALIDATION, _REPLAY = (f'{WORK_FOLDER}/{name}.extxyz' for name in ('training', 'validation', 'replay'))
_STAGE_TWO = ('swa', 'stage_two', 'start_swa', 'start_stage_two')


@dataclass(frozen=True)
class Data:
    """What a training is made of; file names are relative to the folder of the job.

    :param parts: labelled sets that are trained on.
    :param validation: labelled set that decides which model is kept.
    :param isolated: energy [eV] of an isolated atom of each element.
    :param is_weighted: whether atoms have weights.
    :param start: file of the model to start from.
    :param replay: labelled set of that model's own, which it must not forget.
    """

    parts: Sequence[Part]
    validation: Part
    isolated: Mapping[str, float]
    is_weighted: bool
    start: str | None
    replay: Part | None
    training_file: str = _TRAINING
    validation_file: str = _VALIDATION

    @property
    def replay_file(self) -> str | None:
        """File of the structures that are replayed."""
        return _REPLAY if self.replay else None

    @property
    def files(self) -> list[str]:
        """All files that are read."""
        return [name for name in (self.training_file, self.validation_file, self.replay_file, self.start) if name]

    @property
    def n_training(self) -> int:
        """Number of structures that are trained on."""
        return sum(len(part.frames) for part in self.parts)

    @property
    def trained_on(self) -> list[str]:
        """Of ``energy``, ``forces`` and ``stress`` those of which there is a label that weighs anything."""
        frames = [atoms for part in self.parts for atoms in part.frames]
        found = {
            'energy': any(ENERGY in atoms.info and atoms.info.get(ENERGY_WEIGHT, 1.0) > 0.0 for atoms in frames),
            'forces': any(FORCES in atoms.arrays for atoms in frames),
            'stress': any(STRESS in atoms.info and atoms.info.get(STRESS_WEIGHT, 1.0) > 0.0 for atoms in frames),
        }
        return [name for name, is_there in found.items() if is_there]

    @property
    def force_rms(self) -> float | None:
        """Root mean square of the components of the forces that weigh anything [eV/angstrom]; None if it is 0."""
        frames = [atoms for part in self.parts for atoms in part.frames if FORCES in atoms.arrays]
        ones = [atoms.arrays.get(ATOM_WEIGHTS, np.ones(len(atoms))) for atoms in frames]
        forces = [atoms.arrays[FORCES][weights > 0.0] for atoms, weights in zip(frames, ones, strict=True)]
        components = np.concatenate([np.zeros((0, 3)), *forces])
        return float(np.sqrt(np.mean(components**2))) if components.any() else None


def prepare_data(job: Mapping[str, Any], folder: Path) -> Data:
    """Read the labelled sets of a ``train-mace`` job, check and weigh them, and write them for mace-torch.

    :raises OodalError: if a file, a label, an element or an energy of an isolated atom is missing or wrong.
    """
    values, start = job['settings'], job.get('start')
    parts = [read_part(folder, name) for name in job['training']]
    validation = read_part(folder, job['validation'])
    replay = read_part(folder, job['replay']) if job.get('replay') else None
    if start is None and (replay is not None or values['E0s'] == 'foundation' or values['freeze'] != 'nothing'):
        raise OodalError("replay, E0s = 'foundation' and freeze need a model to start from: give start")
    model = None
    if start is not None:
        model = open_model(folder / start, device='cpu', head=values['arguments'].get('foundation_head'))
    elements = _check_elements(parts, validation, replay, model)
    given = values['E0s'] if model is None or values['E0s'] != 'foundation' else _energies_of(model)
    isolated = find_isolated_energies(parts, given, elements)
    check_energies([*parts, validation], isolated, values['precision'])
    weigh_parts(parts, values['weights'], values['downweight'])
    weigh_parts([validation], values['weights'], values['downweight'])
    written = {_TRAINING: parts, _VALIDATION: [validation], **({_REPLAY: [replay]} if replay else {})}
    is_weighted = any(part.is_weighted for group in written.values() for part in group)
    stage_two = [name for name in _STAGE_TWO if values['arguments'].get(name)]
    if is_weighted and stage_two and not knows_atom_weights():
        raise OodalError(f'{stage_two[0]}: the loss of stage two knows no weights of atoms; leave it out')
    (folder / WORK_FOLDER).mkdir(exist_ok=True)
    for name, group in written.items():
        if is_weighted:
            # where one structure has weights, mace-torch needs them on all
            for atoms in (atoms for part in group for atoms in part.frames):
                atoms.arrays.setdefault(ATOM_WEIGHTS, np.ones(len(atoms)))
        write_frames(folder / name, group)
    return Data(parts, validation, isolated, is_weighted, start, replay)


def _check_elements(parts: Sequence[Part], validation: Part, replay: Part | None, start: MaceModel | None) -> set[str]:
    """Return the elements of the training data; others than these may not be validated, nor unknown ones trained."""
    elements = {symbol for part in parts for symbol in part.elements}
    if not validation.elements <= elements:
        raise OodalError(
            f'{validation.name} has {" ".join(sorted(validation.elements - elements))}, which the training data '
            f'({" ".join(sorted(elements))}) lack: train on these elements too, or choose other validation data'
        )
    if start is not None:
        known = set(start.info.elements)
        if unknown := (elements | (replay.elements if replay else set())) - known:
            raise OodalError(
                f'{start.info.file} knows {" ".join(sorted(known))}, not {" ".join(sorted(unknown))}: start from a '
                'model that knows all elements of the data, or from scratch'
            )
        if replay is not None and len(known) == 1:
            raise OodalError(
                f'{start.info.file} knows {" ".join(known)} only: mace-torch cannot replay the data of a model of one '
                'element (it fails when it reads its E0s); leave replay out'
            )
    return elements


def _energies_of(model: MaceModel) -> dict[str, float]:
    """Return the energy [eV] of an isolated atom of each element that a model knows."""
    elements = model.info.elements
    energies = model.isolated_energies(np.array([atomic_numbers[element] for element in elements]))
    return {element: float(energy) for element, energy in zip(elements, energies, strict=True)}
