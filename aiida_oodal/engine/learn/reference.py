"""The reference that labels structures: any ASE calculator, chosen by name, from plain JSON."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, get_calculator_class

from aiida_oodal.engine.errors import OodalError

#: Names under which labels are stored; MACE's defaults, and ASE's extxyz reader leaves them alone.
ENERGY, FORCES, STRESS = 'REF_energy', 'REF_forces', 'REF_stress'
_WAY_OUT = "use a name that ASE knows ('emt', 'lj', 'espresso', ...) or 'package.module:Class'"


def make_calculator(spec: Mapping[str, Any]) -> Calculator:
    """Make the ASE calculator that a specification names.

    :param spec: ``{'calculator': NAME, 'parameters': {...}}``. ``NAME`` is what ASE calls it (``'emt'``; see
        ``ase.calculators.calculator.get_calculator_class``) or, for calculators outside ASE, ``'package.module:Class'``
        (``'tblite.ase:TBLite'``). ``parameters`` are the keyword arguments of its class and may be left out.
    :raises OodalError: if the specification is incomplete, the calculator is unknown or refuses its parameters.
    """
    unknown = set(spec) - {'calculator', 'parameters'}
    name, parameters = spec.get('calculator'), spec.get('parameters', {})
    if not isinstance(name, str) or not name:
        raise OodalError(f"the reference needs a 'calculator' by name, got {dict(spec)!r}: {_WAY_OUT}")
    if unknown:
        raise OodalError(
            f"reference {name!r}: unknown entries {', '.join(sorted(unknown))}; it takes 'calculator' and 'parameters'"
        )
    if not isinstance(parameters, Mapping):
        raise OodalError(f"reference {name!r}: 'parameters' must be a mapping of keyword arguments, got {parameters!r}")
    factory = _find_class(name)
    try:
        calculator: Calculator = factory(**parameters)
    except Exception as error:  # calculators refuse their input in many ways; each of them means these parameters
        raise OodalError(
            f'reference {name!r} refuses the parameters {dict(parameters)!r} ({type(error).__name__}: {error}): '
            'correct them as its manual says'
        ) from error
    return calculator


def _find_class(name: str) -> Any:
    """Return the class behind an ASE name or a ``package.module:Class`` path."""
    try:
        if ':' in name:
            module, _, attribute = name.partition(':')
            return getattr(importlib.import_module(module), attribute)
        return get_calculator_class(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OodalError(f'reference calculator {name!r} cannot be found ({error}): {_WAY_OUT}') from error


def label_structure(atoms: Atoms, calculator: Calculator, *, index: int | None = None) -> Atoms:
    """Label one structure: reference energy, forces and, in a 3D periodic cell, stress.

    The energy is the one that the forces are the derivative of (ASE's ``free_energy`` where the calculator gives it).
    Constraints do not change the labels: a fixed atom keeps its true force.

    :param atoms: the structure; it is left as it is.
    :param calculator: the reference.
    :param index: position in its set, for messages.
    :return: a copy without calculator, with ``info['REF_energy']`` (eV), ``arrays['REF_forces']``
        (shape ``(n_atoms, 3)``, eV/angstrom) and, where available, ``info['REF_stress']`` (shape ``(6,)``, Voigt order
        xx yy zz yz xz xy, eV/angstrom^3, ASE sign: positive means the cell wants to shrink).
    :raises OodalError: if the calculator fails (an element it does not know, no convergence) or gives a value that is
        not finite; the message names calculator, elements and structure.
    """
    labelled: Atoms = atoms.copy()
    work: Atoms = atoms.copy()
    work.calc = calculator
    name = type(calculator).__name__
    where = f'structure {index}' if index is not None else 'the structure'
    elements = ' '.join(sorted(set(atoms.get_chemical_symbols())))
    try:
        forces = np.array(work.get_forces(apply_constraint=False), dtype=np.float64)
        energy = float(work.get_potential_energy(force_consistent='free_energy' in calculator.implemented_properties))
        stress = _stress(work)
    except Exception as error:  # a calculator may fail in any way; the caller decides what happens to the others
        raise OodalError(
            f'{name} cannot label {where} ({len(atoms)} atoms of {elements}): {type(error).__name__}: {error}; '
            'choose a reference that knows these elements, correct its parameters, or leave the structure out'
        ) from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise OodalError(
            f'{name} gives an energy or a force that is not finite for {where} ({len(atoms)} atoms of {elements}): '
            'look for atoms on top of each other'
        )
    labelled.info[ENERGY] = energy
    labelled.arrays[FORCES] = forces
    # A label of an earlier reference must not survive next to the new ones.
    labelled.info.pop(STRESS, None)
    if stress is not None:
        labelled.info[STRESS] = stress
    return labelled


def _stress(atoms: Atoms) -> Any:
    """Return the Voigt stress, or None where it has no meaning or the calculator has none."""
    if not atoms.pbc.all() or 'stress' not in atoms.calc.implemented_properties:
        return None
    try:
        stress = np.array(atoms.get_stress(apply_constraint=False), dtype=np.float64)
    except PropertyNotImplementedError:  # some classes list it and decide by their parameters
        return None
    return stress if np.isfinite(stress).all() else None
