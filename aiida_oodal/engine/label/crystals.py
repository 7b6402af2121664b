"""Cold, slightly strained crystals: the small training set that a first potential starts from."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError


def strained_crystals(
    symbol: str = 'Al',
    crystal: str = 'fcc',
    *,
    lattice_constant: float = 4.0,
    count: int = 30,
    repeat: tuple[int, int, int] = (2, 2, 2),
    strain: float = 0.015,
    rattle: tuple[float, float] = (0.02, 0.06),
    seed: int = 0,
) -> list[Atoms]:
    """Make supercells of one crystal with random lattice constants and random displacements.

    :param symbol: element, or a compound where ``crystal`` is one (``'NaCl'``, ``'rocksalt'``).
    :param crystal: structure as :func:`ase.build.bulk` names it.
    :param lattice_constant: angstrom; each cell gets this times ``1 + u`` with ``u`` uniform in ``[-strain, strain]``.
    :param count: number of structures.
    :param repeat: repetitions of the conventional cell (cubic where the structure has one) along its vectors.
    :param strain: largest relative change of the lattice constant.
    :param rattle: range of the standard deviation of the Gaussian displacements, angstrom.
    :param seed: of all random numbers; the same seed gives the same structures.
    :return: ``count`` periodic structures without labels.
    :raises OodalError: if a value is out of range or ASE cannot build the crystal.
    """
    if count < 1 or lattice_constant <= 0 or min(repeat) < 1:
        raise OodalError(
            f'count = {count}, lattice_constant = {lattice_constant} and repeat = {repeat} must be positive'
        )
    if not 0 <= strain < 0.5:
        raise OodalError(f'strain = {strain} must be at least 0 and below 0.5: it is relative to the lattice constant')
    if not 0 <= rattle[0] <= rattle[1]:
        raise OodalError(
            f'rattle = {rattle} must be a range (smallest, largest) of displacements of at least 0 angstrom'
        )
    random = np.random.default_rng(seed)
    structures = []
    for _ in range(count):
        a = lattice_constant * (1.0 + random.uniform(-strain, strain))
        atoms = _unit_cell(symbol, crystal, a).repeat(repeat)
        atoms.positions += random.normal(scale=random.uniform(*rattle), size=(len(atoms), 3))
        structures.append(atoms)
    return structures


def _unit_cell(symbol: str, crystal: str, a: float) -> Atoms:
    """Build the conventional cubic cell, or the primitive one of a structure that has no cubic cell."""
    try:
        try:
            return bulk(symbol, crystal, a=a, cubic=True)
        except (RuntimeError, ValueError):
            return bulk(symbol, crystal, a=a)
    except (RuntimeError, ValueError, KeyError) as error:
        raise OodalError(
            f'ASE cannot build {symbol!r} as {crystal!r} with a = {a:.3f} angstrom ({error}): '
            "choose a structure that ase.build.bulk knows, such as 'fcc', 'bcc', 'hcp', 'diamond'"
        ) from error
