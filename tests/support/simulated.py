"""What a decision comes to over many replications at once: for the tests and for docs/statistics.md."""

import math

import numpy as np

from sae_checks.comparing import resampled_error_rates
from sae_checks.comparing.resampled_error_rates import ErrorRates
from sae_checks.judging import sequential
from sae_checks.judging.budget import Budget

LIMIT = 1.0


def increases(shape, cv, mean, *, n, n_replications, seed):
    """(replications, n) increases per sequence with that mean and coefficient of variation."""
    rng = np.random.default_rng(seed)
    size = (n_replications, n)
    if shape == "lognormal":
        variance = math.log1p(cv**2)
        return mean * rng.lognormal(-variance / 2, math.sqrt(variance), size)
    if shape == "gamma":
        return mean * rng.gamma(1 / cv**2, cv**2, size)
    assert shape == "contaminated"  # one sequence in twenty costs ten times as much as the others
    share, times = 0.05, 10.0
    base = np.where(rng.random(size) < share, times, 1.0) / (1 + share * (times - 1))
    return mean * base * np.exp(cv * rng.standard_normal(size) - cv**2 / 2)


def rates(values, budget: Budget) -> ErrorRates:
    """The rule of `sequential.decide` for increases, against LIMIT, in all replications at once."""
    return resampled_error_rates.ratio_error_rates(
        values - LIMIT, budget, (sequential.GUARD_FACTOR - 1) * LIMIT if budget.is_guarded else None
    )
