"""How large a potential becomes: it grows as long as that lowers the error on its training data enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Fit = TypeVar('Fit')

#: Functions of a step over those of the one before it.
_STEP = 2
#: A step must lower the error by this share to be kept.
_WORTH = 0.1
#: Labels for each unknown, at least, of a potential that has grown.
_LABELS_PER_UNKNOWN = 4.0
#: Angstrom.
_CUTOFF_STEP = 0.5


@dataclass(frozen=True)
class Form:
    """What grows: the number of functions per element, and the cutoff (angstrom)."""

    number_of_functions: int
    cutoff: float


@dataclass(frozen=True)
class Step:
    """A form that was tried.

    :param form: of this step.
    :param force_rmse: of the forces it was fitted to, by their weights, eV/angstrom.
    :param kept: whether it was worth it.
    """

    form: Form
    force_rmse: float
    kept: bool


@dataclass(frozen=True)
class Limits:
    """How far a potential may grow.

    :param force_tolerance: it grows while the error is larger, eV/angstrom.
    :param max_functions: per element; not above what it begins with means that their number does not grow.
    :param max_cutoff: angstrom; not above what it begins with means that the cutoff does not grow.
    :param n_labels: that it is fitted to.
    :param n_elements: each has functions of its own.
    """

    force_tolerance: float
    max_functions: int
    max_cutoff: float
    n_labels: int
    n_elements: int

    @property
    def most_functions(self) -> int:
        """Functions per element that these labels allow."""
        return min(self.max_functions, int(self.n_labels / (_LABELS_PER_UNKNOWN * self.n_elements)))


def grow(start: Form, limits: Limits, try_form: Callable[[Form], tuple[float, Fit]]) -> tuple[Fit, list[Step], str]:
    """Fit a potential, and larger ones as long as that is needed, allowed, and lowers the error by a tenth.

    First the number of functions is doubled until that does not help, then the cutoff grows.

    :param start: form to begin with; it is fitted in any case.
    :param try_form: fits a form and returns the error (eV/angstrom) and the fit.
    :return: the last fit that was worth it, all steps in their order, and a sentence that says why growth ended.
    """
    error, fit = try_form(start)
    steps = [Step(start, error, kept=True)]
    for next_form in (_more_functions, _longer_cutoff):
        while (last := _kept(steps)).force_rmse > limits.force_tolerance:
            form = next_form(last, limits)
            if form is None:
                break
            error, larger = try_form(form)
            steps.append(Step(form, error, kept=error < (1.0 - _WORTH) * last.force_rmse))
            if not steps[-1].kept:
                break
            fit = larger
    return fit, steps, _reason(steps, limits)


def _kept(steps: list[Step]) -> Step:
    """Return the last step that was worth it."""
    return next(step for step in reversed(steps) if step.kept)


def _more_functions(last: Step, limits: Limits) -> Form | None:
    wanted = min(_STEP * last.form.number_of_functions, limits.most_functions)
    return Form(wanted, last.form.cutoff) if wanted > last.form.number_of_functions else None


def _longer_cutoff(last: Step, limits: Limits) -> Form | None:
    wanted = min(last.form.cutoff + _CUTOFF_STEP, limits.max_cutoff)
    return Form(last.form.number_of_functions, wanted) if wanted > last.form.cutoff else None


def _reason(steps: list[Step], limits: Limits) -> str:
    """Say how large the potential became and why not larger."""
    last, unit = _kept(steps), 1000.0
    said = (
        f'{last.form.number_of_functions} functions per element and cutoff {last.form.cutoff:g} angstrom: '
        f'{unit * last.force_rmse:.1f} meV/angstrom on the training forces'
    )
    if last.force_rmse <= limits.force_tolerance:
        return f'{said}, within the tolerance of {unit * limits.force_tolerance:g}'
    if not steps[-1].kept:
        tried = steps[-1]
        return (
            f'{said}; {tried.form.number_of_functions} functions and {tried.form.cutoff:g} angstrom gave '
            f'{unit * tried.force_rmse:.1f}, not worth their price'
        )
    if limits.most_functions < limits.max_functions:
        return f'{said}; {limits.n_labels} labels do not carry more than {limits.most_functions} functions per element'
    return f'{said}, above the tolerance of {unit * limits.force_tolerance:g}; it may not grow further'
