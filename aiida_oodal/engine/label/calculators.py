"""ASE calculators by name, from plain JSON, and the labels that they give."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators import calculator as ase_calculator
from ase.calculators.calculator import (
    BadConfiguration,
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    get_calculator_class,
)
from ase.data import chemical_symbols

from aiida_oodal.engine.errors import OodalError, suggest
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS

from .parameters import find_unknown, find_unread, insert_files

_WAY_OUT = "use a name that ASE knows ('emt', 'lj', 'espresso', ...) or 'package.module:Class'"
#: What a specification may hold.
SPECIFICATION = ('calculator', 'parameters', 'reuse')
#: Calculators that take long to make and keep nothing from one structure for the next.
_REUSED = ('mace.calculators:MACECalculator', 'mace.calculators:mace_mp', 'mace_mp')


class ProgramMissingError(OodalError):
    """The program of a calculator is not there: no structure can be labelled."""


def make_calculator(spec: Mapping[str, Any], files: Mapping[str, Path] | None = None) -> Calculator:
    """Make the ASE calculator that a specification names.

    :param spec: ``{'calculator': NAME, 'parameters': {...}}``. ``NAME`` is what ASE calls it (``'emt'``; see
        ``ase.calculators.calculator.get_calculator_class``) or, for calculators outside ASE, ``'package.module:Class'``
        (``'tblite.ase:TBLite'``). ``parameters`` are the keyword arguments of its class and may be left out.
    :param files: by name what ``'{name}'`` stands for in the parameters.
    :raises OodalError: if the specification is incomplete, the calculator is unknown, refuses its parameters or does
        not know one of them.
    """
    name, parameters = read_specification(spec)
    factory = find_class(name)
    try:
        calculator: Calculator = factory(**insert_files(parameters, files or {}))
    except Exception as error:  # calculators refuse their input in many ways; each of them means these parameters
        if _lacks_program(error):
            raise ProgramMissingError(_explain_missing(name, error)) from error
        unknown = find_unknown(factory, parameters)
        raise OodalError(
            f'calculator {name!r} refuses the parameters {dict(parameters)!r} ({type(error).__name__}: {error}): '
            f'{unknown or "correct them as its manual says"}'
        ) from error
    if problem := find_unread(factory, calculator, parameters):
        raise OodalError(f'calculator {name!r}: {problem}')
    return calculator


def read_specification(spec: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return name and parameters of a calculator.

    :raises OodalError: if they are not well formed.
    """
    unknown = sorted(set(spec) - set(SPECIFICATION))
    name, parameters = spec.get('calculator'), spec.get('parameters', {})
    if not isinstance(name, str) or not name:
        raise OodalError(f"a 'calculator' is needed by name, got {dict(spec)!r}: {_WAY_OUT}")
    if unknown:
        raise OodalError(
            f'calculator {name!r}: unknown entries {", ".join(unknown)}; {suggest(unknown[0], SPECIFICATION)}'
        )
    if not isinstance(parameters, Mapping):
        raise OodalError(
            f"calculator {name!r}: 'parameters' must be a mapping of keyword arguments, got {parameters!r}"
        )
    if not isinstance(spec.get('reuse', False), bool):
        raise OodalError(f"calculator {name!r}: 'reuse' must be true or false, got {spec['reuse']!r}")
    return name, parameters


def is_reused(spec: Mapping[str, Any]) -> bool:
    """Tell whether one calculator may label one structure after the other.

    Else each structure gets a calculator of its own: many go on from the wave function or the neighbour list of the
    structure before, so that a label would depend on what was labelled before it. ``reuse: true`` is for calculators
    that take long to make and keep nothing.
    """
    return bool(spec.get('reuse', spec.get('calculator') in _REUSED))


def find_class(name: str) -> Any:
    """Return the class behind an ASE name or a ``package.module:Class`` path.

    :raises OodalError: if there is none.
    """
    try:
        if ':' in name:
            module, _, attribute = name.partition(':')
            return getattr(importlib.import_module(module), attribute)
        return get_calculator_class(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OodalError(f'calculator {name!r} cannot be found ({error}): {_WAY_OUT}') from error


def find_elements(name: str) -> tuple[str, ...] | None:
    """Return the elements that a calculator has parameters for, or None where only the calculator itself can tell.

    Source: ``ase.calculators.emt`` keeps them in its module, by the symbol of the element. Other packages are not
    imported to be asked: that may take long, and they may be installed only where jobs run.

    :param name: as in :func:`make_calculator`.
    """
    if ':' in name and not name.startswith('ase.'):
        return None
    try:
        module = importlib.import_module(find_class(name).__module__)
    except OodalError:  # a calculator of ASE may come from a package that only jobs have
        return None
    table = getattr(module, 'parameters', None)
    return tuple(table) if isinstance(table, dict) and table and set(table) <= set(chemical_symbols) else None


def label_structure(atoms: Atoms, calculator: Calculator, *, index: int | None = None) -> Atoms:
    """Label one structure: energy, forces and, in a 3D periodic cell, stress.

    The energy is the one that the forces are the derivative of (ASE's ``free_energy`` where the calculator gives it).
    Constraints do not change the labels: a fixed atom keeps its true force.

    :param atoms: the structure; it is left as it is.
    :param calculator: what labels.
    :param index: position in its set, for messages.
    :return: a copy without calculator, with ``info['REF_energy']`` (eV), ``arrays['REF_forces']``
        (shape ``(n_atoms, 3)``, eV/angstrom) and, where available, ``info['REF_stress']`` (shape ``(6,)``, Voigt order
        xx yy zz yz xz xy, eV/angstrom^3, ASE sign: positive means the cell wants to shrink).
    :raises ProgramMissingError: if the calculator has no program to run.
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
        if _lacks_program(error):
            raise ProgramMissingError(_explain_missing(name, error)) from error
        raise OodalError(
            f'{name} cannot label {where} ({len(atoms)} atoms of {elements}): {type(error).__name__}: {error}; '
            'choose a calculator that knows these elements, correct its parameters, or leave the structure out'
        ) from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise OodalError(
            f'{name} gives an energy or a force that is not finite for {where} ({len(atoms)} atoms of {elements}): '
            'look for atoms on top of each other'
        )
    labelled.info[ENERGY] = energy
    labelled.arrays[FORCES] = forces
    # A label of an earlier calculator must not survive next to the new ones.
    labelled.info.pop(STRESS, None)
    if stress is not None:
        labelled.info[STRESS] = stress
    return labelled


def _lacks_program(error: Exception) -> bool:
    """Tell that a program is not set up, or not there: the shell says 127 then."""
    setup = (
        isinstance(error, (ase_calculator.EnvironmentError, BadConfiguration)) or type(error) is CalculatorSetupError
    )
    return setup or 'error code 127' in str(error)


def _explain_missing(name: str, error: Exception) -> str:
    return (
        f'calculator {name!r} has no program on this computer ({type(error).__name__}: {error}): the environment of '
        'the job must have it on PATH, and it must be set up as ASE wants it (a configuration file, $ASE_CONFIG_PATH)'
    )


def _stress(atoms: Atoms) -> Any:
    """Return the Voigt stress, or None where it has no meaning or the calculator has none."""
    if not atoms.pbc.all() or 'stress' not in atoms.calc.implemented_properties:
        return None
    try:
        stress = np.array(atoms.get_stress(apply_constraint=False), dtype=np.float64)
    except PropertyNotImplementedError:  # some classes list it and decide by their parameters
        return None
    return stress if np.isfinite(stress).all() else None
