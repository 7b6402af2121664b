"""How wrong a potential may be at a given gamma: a bound on the force error of an atom, from labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from aiida_oodal.engine.ood.looks import quantiles
from aiida_oodal.engine.thresholds import NOT_PHYSICAL

FloatArray = NDArray[np.float64]

#: Atoms of a bin at least, and bins at most.
_LEAST, _MOST_BINS = 50, 20
#: Smallest gamma; atoms of perfect crystals may have 0.
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class ErrorBound:
    """A bound on the force error that rises with gamma.

    Between its knots it is linear in the logarithm of gamma, outside of them it is that of the nearest.

    :param gamma: of the knots, ascending, shape (n_knots,).
    :param error: the bound there, eV/angstrom, not falling, shape (n_knots,).
    :param largest: the largest gamma that was judged; above it nothing is promised.
    """

    gamma: FloatArray
    error: FloatArray
    largest: float

    @classmethod
    def fit(cls, gamma: FloatArray, error: FloatArray, coverage: float) -> ErrorBound:
        """Fit to judged atoms.

        The atoms are sorted by gamma into bins of equally many atoms. In each the conformal quantile of the errors is
        taken (Mondrian conformal prediction; Vovk, Gammerman and Shafer, 2005), and the quantiles are made to rise with
        gamma by isotonic regression.

        :param gamma: shape (n,).
        :param error: length of the difference of predicted force and label, eV/angstrom, shape (n,).
        :param coverage: share of the atoms whose error is to be below the bound.
        """
        # of an element that an ensemble does not know gamma is infinite
        logarithm = np.log(np.clip(gamma, _TINY, NOT_PHYSICAL))
        count = int(np.clip(len(gamma) // _LEAST, 1, _MOST_BINS))
        edges = np.unique(np.quantile(logarithm, np.linspace(0.0, 1.0, count + 1)))
        bins = np.searchsorted(edges[1:-1], logarithm, side='right')
        groups = [bins == each for each in np.unique(bins)]
        bounds = np.array([quantiles(error[group], (coverage,))[0] for group in groups])
        rising = isotonic_regression(bounds, weights=[np.count_nonzero(group) for group in groups]).x
        middles = np.exp([np.mean(logarithm[group]) for group in groups])
        return cls(middles, rising, float(np.exp(logarithm.max())))

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> ErrorBound:
        """Build a bound from what :meth:`plain` gave."""
        return cls(np.array(values['gamma']), np.array(values['error']), float(values['largest']))

    def plain(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {'gamma': self.gamma.tolist(), 'error': self.error.tolist(), 'largest': self.largest}

    def __call__(self, gamma: ArrayLike) -> FloatArray:
        """Return the bound at a gamma, eV/angstrom, shape that of ``gamma``."""
        logarithm = np.log(np.maximum(np.asarray(gamma, dtype=np.float64), _TINY))
        result: FloatArray = np.interp(logarithm, np.log(self.gamma), self.error)
        return result

    def find_gamma(self, error: float) -> float:
        """Return the gamma up to which the bound is not above an error [eV/angstrom].

        It is 0 if it is above it everywhere, and the largest gamma that was judged if it is nowhere.
        """
        if error >= self.error[-1]:
            return self.largest
        if error < self.error[0]:
            return 0.0
        right = int(np.searchsorted(self.error, error, side='right'))
        share = (error - self.error[right - 1]) / (self.error[right] - self.error[right - 1])
        logarithm = np.log(self.gamma[right - 1 : right + 1])
        found = np.exp(logarithm[0] + share * (logarithm[1] - logarithm[0]))
        return min(float(found), self.largest)
