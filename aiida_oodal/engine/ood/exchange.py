"""Embeddings as people exchange them: ``embeddings_MACE_{Model}_{wX}_on_{Dataset}.extxyz`` with ``latent_scalars``.

Text is for exchange: a file is an order of magnitude larger and slower than arrays, which is what jobs and nodes hold.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import ase.io
import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.latents_files import GrowingArray
from aiida_oodal.engine.structures import StructureSet

#: Per-atom array of latents.
LATENTS_KEY = 'latent_scalars'
#: Per-structure energy of the model, eV.
ENERGY_KEY = 'MACE_energy'
_NAME = re.compile(r'embeddings_MACE_(?P<model>.+)_(?P<label>w\d+)_on_(?P<dataset>.+)\.extxyz(\.gz|\.bz2|\.xz)?')
_OPENERS: dict[str, Callable[..., Any]] = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open}


@dataclass(frozen=True)
class EmbeddingsName:
    """What the name of a file of embeddings says.

    :param model: of the ensemble, e.g. ``T1``.
    :param label: of the seed, e.g. ``w1``.
    :param dataset: that was evaluated, e.g. ``T1_OOD``.
    """

    model: str
    label: str
    dataset: str

    def __str__(self) -> str:
        return f'embeddings_MACE_{self.model}_{self.label}_on_{self.dataset}.extxyz'

    @classmethod
    def parse(cls, path: Path) -> EmbeddingsName:
        """Read the name of a file.

        :raises OodalError: if it is not of this form.
        """
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise OodalError(
                f'{path}: the name does not say which model it is of; rename it to '
                'embeddings_MACE_{Model}_{wX}_on_{Dataset}.extxyz'
            )
        return cls(match['model'], match['label'], match['dataset'])


def write_embeddings(
    path: Path,
    structures: Iterable[Atoms],
    latents: Iterable[np.ndarray[Any, Any]],
    energies: Iterable[float] | None = None,
) -> Path:
    """Write structures with their latents, one at a time.

    :param path: ``.extxyz``, also ``.gz``, ``.bz2`` or ``.xz``.
    :param latents: of each structure, shape (n_atoms, n_features).
    :param energies: of each structure, eV.
    """
    given = iter(energies) if energies is not None else None
    with _open(path, 'wt') as handle:
        for atoms, values in zip(structures, latents, strict=True):
            copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            copy.arrays[LATENTS_KEY] = np.asarray(values, dtype=np.float64)
            if given is not None:
                copy.info[ENERGY_KEY] = float(next(given))
            ase.io.write(handle, copy, format='extxyz')
    return path


def read_embeddings(path: Path, folder: Path, label: str) -> StructureSet:
    """Read structures, and put their latents into a folder as a ``latents`` job leaves them.

    :param folder: gets ``latents_<label>.npy``, ``energies_<label>.npy`` (if the file has energies), ``numbers.npy``,
        ``offsets.npy`` and ``structure_index.npy``.
    :return: the structures without the latents.
    :raises OodalError: if a frame has no latents, or they differ in number from those before.
    """
    frames: list[Atoms] = []
    energies: list[float] = []
    latents: GrowingArray | None = None
    n_features = 0
    try:
        with ExitStack() as stack:
            handle = stack.enter_context(_open(path, 'rt'))
            for atoms in ase.io.iread(handle, format='extxyz'):
                values = _latents_of(atoms, f'{path}: frame {len(frames)}')
                if latents is None:
                    n_features = values.shape[1]
                    latents = GrowingArray(folder / f'latents_{label}.npy', values.dtype, (n_features,))
                    stack.callback(latents.close)
                if values.shape[1] != n_features:
                    raise OodalError(
                        f'{path}: frame {len(frames)} has {values.shape[1]} latents an atom, those before {n_features}'
                    )
                latents.append(values)
                frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
                energies.append(float(atoms.info.get(ENERGY_KEY, np.nan)))
    except OodalError:
        raise
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, IndexError) as error:
        raise OodalError(f'{path}: frame {len(frames)} cannot be read ({error})') from error
    if latents is None:
        raise OodalError(f'{path} holds no structure')
    structures = StructureSet.from_atoms(frames)
    for name, array in (
        ('numbers', structures.numbers),
        ('offsets', structures.offsets),
        ('structure_index', np.arange(len(structures))),
    ):
        np.save(folder / f'{name}.npy', array)
    if np.isfinite(energies).all():
        np.save(folder / f'energies_{label}.npy', np.array(energies))
    return structures


def _latents_of(atoms: Atoms, where: str) -> np.ndarray[Any, Any]:
    """Return the latents of a frame, shape (n_atoms, n_features)."""
    values = atoms.arrays.get(LATENTS_KEY)
    if values is None:
        raise OodalError(f'{where} has no per-atom array {LATENTS_KEY!r}, only {", ".join(atoms.arrays)}')
    # The reader gives one latent an atom as a flat array.
    return cast('np.ndarray[Any, Any]', values.reshape(len(atoms), -1).astype(np.float32))


def _open(path: Path, mode: str) -> TextIO:
    return cast(TextIO, _OPENERS.get(path.suffix, open)(path, mode, encoding='utf-8'))
