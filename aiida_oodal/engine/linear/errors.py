"""How wrong a potential is on labelled structures: in all, by element, in the core of clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiida_oodal.engine.metrics import energy_errors, force_errors, stress_errors

from .basis import FloatArray
from .potential import LinearPotential
from .targets import Target, named


@dataclass(frozen=True)
class Comparison:
    """What a potential and the labels say of one structure.

    :param target: the structure with its labels and weights.
    :param energy: predicted, as a label, eV.
    :param forces: predicted, shape ``(n_atoms, 3)``, eV/angstrom.
    :param stress: predicted, Voigt order xx yy zz yz xz xy, shape ``(6,)``, eV/angstrom^3; None unless periodic.
    :param max_gamma: the largest gamma of all its atoms.
    """

    target: Target
    energy: float
    forces: FloatArray
    stress: FloatArray | None
    max_gamma: float


def compare(potential: LinearPotential[Any], targets: Iterable[Target]) -> list[Comparison]:
    """Evaluate a potential on labelled structures."""
    comparisons = []
    for target in targets:
        with named(target.name, target.atoms):
            prediction = potential.basis.predict(target.atoms)
        comparisons.append(
            Comparison(
                target=target,
                energy=prediction.energy + potential.atom_energies.total(target),
                forces=prediction.forces,
                stress=prediction.stress,
                max_gamma=float(potential.gamma(target.atoms, prediction.projections).max()),
            )
        )
    return comparisons


def judge(comparisons: Sequence[Comparison], *, fitted_only: bool = False) -> dict[str, Any]:
    """Summarise comparisons.

    :param fitted_only: count only labels that weigh something in a fit (with a mask, buffer atoms have no say).
    :return: counts; errors of energies (meV/atom), forces (meV/angstrom) and stresses (GPa); the largest gamma;
        ``by_element``: force errors of each element; ``core``: those of core atoms where there is a buffer.
    """
    targets = [each.target for each in comparisons]
    has_energy = [target.energy_weight > 0.0 or not fitted_only for target in targets]
    kept = np.concatenate([(target.force_weights > 0.0) | (not fitted_only) for target in targets])
    predicted = np.concatenate([each.forces for each in comparisons])[kept]
    labels = np.concatenate([target.forces for target in targets])[kept]
    symbols = np.concatenate([target.atoms.get_chemical_symbols() for target in targets])[kept]
    masks = [target.atoms.arrays.get('force_mask', np.ones(len(target.atoms))) for target in targets]
    core = (np.concatenate(masks) >= 0.5)[kept]
    n_atoms, n_core = len(kept), sum(int(target.core.sum()) for target in targets)
    energies = [
        (each.energy, each.target.energy, len(each.target.atoms))
        for each, counts in zip(comparisons, has_energy, strict=True)
        if counts
    ]
    stresses = [
        (each.stress, each.target.stress)
        for each, counts in zip(comparisons, has_energy, strict=True)
        if counts and each.stress is not None and each.target.stress is not None
    ]
    judged = {
        'n_structures': len(comparisons),
        'n_atoms': n_atoms,
        'n_core_atoms': n_core,
        'core_fraction': n_core / n_atoms,
        'n_energies': len(energies),
        'max_gamma': max(each.max_gamma for each in comparisons),
        **energy_errors(*np.array(energies).reshape(-1, 3).T),
        **force_errors(predicted, labels),
        **stress_errors(*np.array(stresses).reshape(-1, 2, 6).swapaxes(0, 1)),
        'by_element': {
            str(symbol): {'n_atoms': int(np.count_nonzero(of := symbols == symbol))}
            | force_errors(predicted[of], labels[of])
            for symbol in np.unique(symbols)
        },
    }
    if not core.all():
        judged['core'] = force_errors(predicted[core], labels[core])
    return judged
