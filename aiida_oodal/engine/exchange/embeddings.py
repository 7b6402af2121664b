"""Embeddings as people exchange them: ``embeddings_MACE_{Model}_{wX}_on_{Dataset}.extxyz`` with ``latent_scalars``.

Text is for exchange: a file is an order of magnitude larger and slower than arrays, which is what jobs and nodes hold.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, cast

import ase.io
import numpy as np
from ase import Atoms

from aiida_oodal.engine.content import fingerprints, is_isolated
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.growing import GrowingArray
from aiida_oodal.engine.labels import LABEL_SHAPES
from aiida_oodal.engine.structures import SetBuilder, StructureSet

from .labels import LabelTaker
from .stream import OPENERS, Failure, StructureStream

#: Per-atom array of latents.
LATENTS_KEY = 'latent_scalars'
#: Per-structure energy of the model, eV.
ENERGY_KEY = 'MACE_energy'
#: SHA-256 of the file of the model, with each structure.
SHA256_KEY = 'MACE_sha256'
_SHA256 = re.compile(rf'(?<!\S){SHA256_KEY}="?([0-9a-f]{{64}})\b')
_NAME = re.compile(r'embeddings_MACE_(?P<model>.+)_(?P<label>w\d+)_on_(?P<dataset>.+)\.extxyz(\.gz|\.bz2|\.xz)?')


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
    *,
    sha256: str | None = None,
) -> Path:
    """Write structures with their latents and labels, one at a time.

    :param path: ``.extxyz``, also ``.gz``, ``.bz2`` or ``.xz``.
    :param latents: of each structure, shape (n_atoms, n_features).
    :param energies: of each structure, eV.
    :param sha256: of the file of the model, so that who reads the latents knows which model they are of.
    """
    given = iter(energies) if energies is not None else None
    with _open(path, 'wt') as handle:
        for atoms, values in zip(structures, latents, strict=True):
            copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            copy.arrays |= {name: atoms.arrays[name] for name in LABEL_SHAPES if name in atoms.arrays}
            copy.info |= {name: atoms.info[name] for name in LABEL_SHAPES if name in atoms.info}
            copy.arrays[LATENTS_KEY] = np.asarray(values, dtype=np.float64)
            if given is not None:
                copy.info[ENERGY_KEY] = float(next(given))
            if sha256 is not None:
                copy.info[SHA256_KEY] = sha256
            ase.io.write(handle, copy, format='extxyz')
    return path


def read_embeddings(path: Path, folder: Path, label: str) -> StructureSet:
    """Read structures, and put their latents into a folder as a ``latents`` job leaves them.

    :param folder: gets ``latents_<label>.npy``, ``energies_<label>.npy`` (if the file has energies), ``numbers.npy``,
        ``offsets.npy``, ``structure_index.npy``, ``fingerprints.npy`` and ``isolated.npy``.
    :return: the structures without the latents, with labels and all else as :func:`.read.read_structures` keeps it.
    :raises OodalError: if a frame cannot be read or has no latents, or they differ in number from those before.
    """
    energies: list[float] = []
    latents: GrowingArray | None = None
    n_features = 0
    builder, taker = SetBuilder(), LabelTaker(None, 'extxyz')
    with ExitStack() as stack:
        for item in StructureStream(path):
            if isinstance(item, Failure):
                raise OodalError(f'{path}: frame {item.index} cannot be read (line {item.line}: {item.message})')
            place = f'frame {item.index} (line {item.line})'
            values = _latents_of(item.atoms, f'{path}: frame {item.index}', item.line)
            if latents is None:
                n_features = values.shape[1]
                latents = GrowingArray(folder / f'latents_{label}.npy', values.dtype, (n_features,))
                stack.callback(latents.close)
            if values.shape[1] != n_features:
                raise OodalError(
                    f'{path}: frame {item.index} has {values.shape[1]} latents an atom, those before {n_features} '
                    f'(line {item.line})'
                )
            latents.append(values)
            energies.append(_energy_of(item.atoms))
            item.atoms.info.pop(SHA256_KEY, None)
            taker.take(item.atoms, place)
            builder.add(item.atoms, place)
    if latents is None:
        raise OodalError(f'{path} holds no structure')
    content = builder.build()
    structures = replace(content, notes=tuple(f'{path}: {note}' for note in (*taker.notes(), *content.notes)))
    for name, array in (
        ('numbers', structures.numbers),
        ('offsets', structures.offsets),
        ('structure_index', np.arange(len(structures))),
        ('fingerprints', _fingerprints(structures)),
        ('isolated', _find_isolated(structures)),
    ):
        np.save(folder / f'{name}.npy', array)
    if np.isfinite(energies).all():
        np.save(folder / f'energies_{label}.npy', np.array(energies))
    return structures


def read_sha256(path: Path) -> str | None:
    """Return the SHA-256 of the model that a file of embeddings is of; None if its first frame does not say."""
    try:
        with _open(path, 'rt') as handle:
            handle.readline()
            found = _SHA256.search(handle.readline())
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise OodalError(f'{path}: frame 0 cannot be read ({error})') from error
    return None if found is None else found[1]


def _fingerprints(structures: StructureSet) -> np.ndarray[Any, Any]:
    parts = structures.offsets, structures.numbers, structures.positions, structures.cells, structures.pbc
    return fingerprints(*parts)


def _find_isolated(structures: StructureSet) -> np.ndarray[Any, Any]:
    sizes = np.diff(structures.offsets)
    return np.array([n == 1 and is_isolated(structures[i]) for i, n in enumerate(sizes)], dtype=bool)


def _latents_of(atoms: Atoms, where: str, line: int | None) -> np.ndarray[Any, Any]:
    """Take the latents out of a frame, shape (n_atoms, n_features)."""
    values = atoms.arrays.pop(LATENTS_KEY, None)
    if values is None:
        there = ', '.join(atoms.arrays)
        raise OodalError(f'{where} has no per-atom array {LATENTS_KEY!r}, only {there} (line {line})')
    if values.dtype.kind not in 'iuf':
        raise OodalError(f'{where}: {LATENTS_KEY} are not numbers (line {line})')
    # The reader gives one latent an atom as a flat array.
    return cast('np.ndarray[Any, Any]', values.reshape(len(atoms), -1).astype(np.float32))


def _energy_of(atoms: Atoms) -> float:
    """Take the model's energy out of a frame [eV]; NaN if there is none."""
    value = atoms.info.pop(ENERGY_KEY, None)
    return float(value) if isinstance(value, (int, float, np.number)) else float('nan')


def _open(path: Path, mode: str) -> TextIO:
    return cast(TextIO, OPENERS.get(path.suffix, open)(path, mode, encoding='utf-8'))
