"""Fit a linear ACE potential: its size, its coefficients, its active set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.active_set import ActiveSet, choose_active_set
from aiida_oodal.engine.linear.atom_energies import find_atom_energies
from aiida_oodal.engine.linear.fit import Solution, fit_linear
from aiida_oodal.engine.linear.growth import Form, Limits, Step, grow
from aiida_oodal.engine.linear.pairs import Pair, name_pairs, shortest_distances, unmet
from aiida_oodal.engine.linear.potential import LinearPotential
from aiida_oodal.engine.linear.targets import Target

from .basis import AceBasis
from .repulsion import place_cores
from .settings import AceFitSettings

#: An ACE potential with what it knows.
AcePotential = LinearPotential[AceBasis]


@dataclass(frozen=True)
class Learned:
    """Size, cutoff and atom energies of the potential of the round before; a new one is not smaller.

    :param number_of_functions: per element.
    :param cutoff: angstrom.
    :param atom_energies: eV, by element.
    """

    number_of_functions: int = 1
    cutoff: float = 0.0
    atom_energies: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AceFit:
    """A fitted potential and how it came about.

    :param potential: with its active sets.
    :param steps: sizes that were tried.
    :param reason: why it is as large as it is.
    :param cores: distance at which the repulsive core of each pair of elements begins, angstrom.
    :param unmet_pairs: pairs of elements that are never within the cutoff of each other in the training data.
    """

    potential: AcePotential
    steps: list[Step]
    reason: str
    cores: Mapping[Pair, float]
    unmet_pairs: list[Pair]


def fit_ace(
    targets: Sequence[Target],
    settings: AceFitSettings,
    *,
    learned: Learned | None = None,
    workers: int = 1,
    report: Callable[[str], None] | None = None,
) -> AceFit:
    """Fit coefficients and choose the active set.

    :param targets: labelled structures; their elements become those of the potential.
    :param learned: the potential before.
    :param workers: processes that build the design matrix; the result does not depend on it.
    :param report: called with lines of progress.
    :raises OodalError: if two elements never meet, the energies are total energies without atom energies, or a
        structure cannot be computed.
    """
    elements = sorted({symbol for target in targets for symbol in target.atoms.get_chemical_symbols()})
    if not elements:
        raise OodalError('there is no structure to fit: add labelled structures to the training data')
    before = learned or Learned()
    start = Form(max(settings.number_of_functions, before.number_of_functions), max(settings.cutoff, before.cutoff))
    distances = shortest_distances(((target.name, target.atoms) for target in targets), start.cutoff)
    if (missing := unmet(distances)) and settings.unmet_pairs == 'refuse':
        raise OodalError(unmet_message(missing, start.cutoff))
    cores = place_cores(distances, settings.repulsion_distance) if settings.repulsion == 'zbl' else {}
    atom_energies = find_atom_energies(
        targets,
        start.cutoff,
        given=settings.reference_energies,
        learned=before.atom_energies,
        fit=settings.fit_atom_energies,
    )

    def try_form(form: Form) -> tuple[float, Solution[AceBasis]]:
        if report is not None:
            report(f'{form.number_of_functions} functions per element, cutoff {form.cutoff:g} angstrom')
        form_settings = settings.with_form(form.number_of_functions, form.cutoff)
        make_basis = functools.partial(AceBasis.from_settings, form_settings, elements, cores)
        solution = fit_linear(make_basis, targets, atom_energies, ridge=settings.ridge, workers=workers, report=report)
        return solution.force_rmse, solution

    limits = Limits(
        force_tolerance=settings.force_tolerance,
        max_functions=settings.max_functions or 0,
        max_cutoff=settings.max_cutoff or 0.0,
        n_labels=sum(3 * int((target.force_weights > 0.0).sum()) for target in targets),
        n_elements=len(elements),
    )
    solution, steps, reason = grow(start, limits, try_form)
    active_sets = {name: _choose(solution, name, settings) for name in solution.basis.elements}
    return AceFit(
        potential=LinearPotential(solution.basis, active_sets, solution.atom_energies),
        steps=steps,
        reason=reason,
        cores=cores,
        unmet_pairs=missing,
    )


def unmet_message(pairs: Sequence[Pair], cutoff: float) -> str:
    """Say which pairs of elements the training data lack, and what can be done."""
    return (
        f'{name_pairs(pairs)}: these elements are never within {cutoff:g} angstrom of each other in the training data, '
        'so that nothing can be learned of how they act on each other; add structures in which they are neighbours, '
        "or go on without the functions of these pairs by unmet_pairs='accept'"
    )


def _choose(solution: Solution[AceBasis], element: str, settings: AceFitSettings) -> ActiveSet:
    """Choose the active set of an element."""
    try:
        return choose_active_set(
            solution.projections[element],
            tol=settings.active_set_tolerance,
            max_swaps=settings.active_set_iterations,
            rank_tolerance=settings.rank_tolerance,
        )
    except OodalError as error:
        raise OodalError(f"{element}: {error}; with weights='full' atoms outside the core count, too") from error
