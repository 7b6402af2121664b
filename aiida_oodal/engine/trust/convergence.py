"""When a campaign has converged: how often walkers run to their end, how small gamma is then, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from aiida_oodal.engine.options import Options, option


@dataclass(frozen=True)
class ConvergenceSettings(Options):
    """When the walks of a campaign are enough, and when more labels are no help."""

    TITLE: ClassVar[str] = 'convergence'

    rounds: int = option(
        1,
        'Rounds in a row that have to pass before the next leg of the schedule begins, and before the campaign ends. '
        'After each of them the walkers begin with other velocities.',
        ge=1,
        le=100,
    )
    gamma: float | None = option(
        None,
        'A round passes only if gamma_quantile of the gamma of every walker is at most this, dimensionless; at least '
        'gamma_select, because only frames above that are kept to learn from. None: to run to the end is enough.',
        gt=0.0,
    )
    gamma_quantile: float = option(
        0.99,
        'Quantile over the samples of a run, of the largest gamma of all atoms in each. 1: the largest of all samples.',
        gt=0.0,
        le=1.0,
    )
    flat_share: float | None = option(
        None,
        'The campaign ends, with exit code 505, if the force error on the validation set fell by less than this share '
        'of it in the last flat_rounds trainings of a leg, and walkers still halt. None: it does not.',
        gt=0.0,
        lt=1.0,
    )
    flat_rounds: int = option(3, 'Trainings in a row without progress, see flat_share.', ge=1, le=1000)

    def find_doubtful(self, max_gamma: ArrayLike) -> float | None:
        """Return the quantile of gamma along a run if it is too large for the run to pass, or None.

        :param max_gamma: largest gamma of all atoms in each sample of the run, shape (n_samples,), dimensionless;
            samples where it is not a number are left out.
        """
        values = np.asarray(max_gamma, dtype=np.float64)
        values = values[np.isfinite(values)]
        if self.gamma is None or not len(values):
            return None
        found = float(np.quantile(values, self.gamma_quantile))
        return found if found > self.gamma else None

    def is_flat(self, errors: Sequence[float]) -> bool:
        """Return whether the error has stopped falling.

        :param errors: on the validation set after each training, the last one last; the lowest of the last
            ``flat_rounds`` is compared with the lowest of those before.
        """
        if self.flat_share is None or len(errors) <= self.flat_rounds:
            return False
        before, last = errors[: -self.flat_rounds], errors[-self.flat_rounds :]
        return min(last) > (1.0 - self.flat_share) * min(before)
