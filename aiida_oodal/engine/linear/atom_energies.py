"""Energies of free atoms: what is subtracted from the labels before a fit, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import Lattice, Region, images_inside

from .targets import Target, named

#: eV per atom. Nothing is bound more strongly than about 9 eV per atom: beyond this the zero is not that of free atoms.
_LARGEST_ENERGY = 20.0
#: eV. Two energies of one free atom that differ more belong to different labellers.
_SAME_ENERGY = 0.01


@dataclass(frozen=True)
class AtomEnergies:
    """Energy of one free atom of each element, and where it comes from.

    :param values: eV; 0 for elements without any information.
    :param sources: ``given`` (in the settings), ``isolated`` (an isolated atom in the training data), ``learned``
        (the potential before), ``fitted`` or ``zero``.
    """

    values: Mapping[str, float]
    sources: Mapping[str, str]

    @property
    def fitted(self) -> tuple[str, ...]:
        """Elements whose energy is to be fitted together with the coefficients."""
        return tuple(element for element, source in self.sources.items() if source == 'fitted')

    def total(self, target: Target) -> float:
        """Return the energy of the free atoms of a structure, eV."""
        return float(target.count(list(self.values)) @ np.array(list(self.values.values())))

    def moved(self, changes: Mapping[str, float]) -> AtomEnergies:
        """Return the same with changes (eV) added to the energies of some elements."""
        return AtomEnergies({name: value + changes.get(name, 0.0) for name, value in self.values.items()}, self.sources)


def is_isolated(target: Target, cutoff: float) -> bool:
    """Tell whether a structure is one atom without another atom, or an image of itself, within the cutoff."""
    if len(target.atoms) != 1:
        return False
    positions = target.atoms.positions
    found, _ = images_inside(positions, Lattice.of(target.atoms), positions[0], Region('sphere', cutoff))
    return len(found) == 1


def find_atom_energies(
    targets: Sequence[Target],
    cutoff: float,
    *,
    given: Mapping[str, float],
    learned: Mapping[str, float] | None = None,
    fit: bool = False,
) -> AtomEnergies:
    """Collect the atom energies of all elements of the training data.

    For each element the first of these is used: the value in the settings, the label of an isolated atom in the
    training data, a fit if it is asked for, the value of the potential of the round before, 0. A fit starts from the
    value of the potential before, or, where there is none or it is far off, from the least-squares fit of the
    compositions.

    :param cutoff: of the potential, angstrom: an atom without neighbours inside is isolated.
    :param given: eV, by element.
    :param learned: eV, by element.
    :param fit: of those elements that are neither given nor there as isolated atoms.
    :raises OodalError: if labels contradict each other, or are total energies and nothing says what to subtract.
    """
    elements = sorted({symbol for target in targets for symbol in target.atoms.get_chemical_symbols()})
    isolated = _isolated(targets, cutoff)
    known = dict(learned or {})
    values, sources = {}, {}
    for element in elements:
        if element in given and element in isolated and abs(given[element] - isolated[element][0]) > _SAME_ENERGY:
            energy, name = isolated[element]
            raise OodalError(
                f'{name} is an isolated {element} atom of {energy:g} eV, and reference_energies gives '
                f'{given[element]:g} eV: leave one of them out'
            )
        if element in given:
            values[element], sources[element] = given[element], 'given'
        elif element in isolated:
            values[element], sources[element] = isolated[element][0], 'isolated'
        elif fit:
            values[element], sources[element] = known.get(element, 0.0), 'fitted'
        else:
            values[element] = known.get(element, 0.0)
            sources[element] = 'learned' if element in known else 'zero'
    energies = AtomEnergies(values, sources)
    unknown = [element for element in energies.fitted if element not in known]
    energies = energies.moved(_by_composition(targets, energies, unknown))
    if _typical_energy(targets, energies) > _LARGEST_ENERGY:
        # Data of one composition do not determine the energies of its elements: those before may be anything.
        energies = energies.moved(_by_composition(targets, energies, energies.fitted))
    _check_zero(targets, energies)
    return energies


def _isolated(targets: Sequence[Target], cutoff: float) -> dict[str, tuple[float, str]]:
    """Return energy (eV) and name of the isolated atom of each element that has one."""
    found: dict[str, tuple[float, str]] = {}
    for target in targets:
        with named(target.name, target.atoms):
            if not is_isolated(target, cutoff):
                continue
        element = target.atoms.get_chemical_symbols()[0]
        energy, name = found.setdefault(element, (target.energy, target.name))
        if abs(energy - target.energy) > _SAME_ENERGY:
            raise OodalError(
                f'{name} and {target.name} are both isolated {element} atoms, of {energy:g} and {target.energy:g} eV: '
                'leave out the one that the other labels do not belong to'
            )
    return found


def _by_composition(targets: Sequence[Target], energies: AtomEnergies, elements: Sequence[str]) -> dict[str, float]:
    """Fit energies of elements (eV) to the energies of structures that weigh something, as if nothing were bound."""
    weighty = [target for target in targets if target.energy_weight > 0.0]
    if not weighty or not elements:
        return {}
    fractions = np.array([target.count(elements) / len(target.atoms) for target in weighty])
    rest = np.array([(target.energy - energies.total(target)) / len(target.atoms) for target in weighty])
    solution, *_ = np.linalg.lstsq(fractions, rest, rcond=None)
    return dict(zip(elements, solution.tolist(), strict=True))


def _typical_energy(targets: Sequence[Target], energies: AtomEnergies) -> float:
    """Return how far labels typically are from the energies of free atoms, eV per atom.

    The median: a single cluster with atoms on top of each other is no reason to doubt the zero of all.
    """
    weighty = [target for target in targets if target.energy_weight > 0.0]
    per_atom = [abs(target.energy - energies.total(target)) / len(target.atoms) for target in weighty]
    return float(np.median(per_atom)) if per_atom else 0.0


def _check_zero(targets: Sequence[Target], energies: AtomEnergies) -> None:
    """Refuse total energies of a DFT code as they are: the fit would spend its functions on a constant.

    :raises OodalError: with a proposal.
    """
    typical = _typical_energy(targets, energies)
    if typical <= _LARGEST_ENERGY:
        return
    proposal = _by_composition(targets, energies, list(energies.values))
    proposed = {symbol: round(value + energies.values[symbol], 3) for symbol, value in proposal.items()}
    raise OodalError(
        f'labels of typically {typical:.1f} eV per atom (limit {_LARGEST_ENERGY:g}) are total energies: give '
        f'reference_energies, those of free atoms under the same labeller (about {proposed} by composition), add '
        'isolated atoms to the training data, or set fit_atom_energies'
    )
