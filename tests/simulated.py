"""What a decision comes to over many replications at once: for the tests and for docs/statistics.md."""

import math
from dataclasses import dataclass

import numpy as np

from sae_checks import sequential
from sae_checks.sequential import Budget, Moments

LIMIT = 1.0


@dataclass(frozen=True)
class Rates:
    """Of replications."""

    passed: float
    failed: float
    n_mean: float
    n_most: int


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


def rates(values, budget: Budget, *, looks=None) -> Rates:
    """The rule of `sequential.decide` for increases, against LIMIT, in all replications at once."""
    n_replications, n_values = values.shape
    badness = values - LIMIT
    sums = [np.cumsum(badness**power, axis=1) for power in (1, 2, 3)]
    open_, passed, failed = (
        np.ones(n_replications, bool),
        np.zeros(n_replications, bool),
        np.zeros(n_replications, bool),
    )
    used = np.full(n_replications, n_values)
    worst = np.asarray((sequential.WORST - 1) * LIMIT) if budget.is_guarded else None
    for n in looks or budget.looks(n_values):
        of = _moments(n, *(column[:, n - 1] / n for column in sums))
        is_pass = open_ & (n >= budget.n_least_to_pass) & (sequential.upper_end(of, budget, worst) < 0)
        is_fail = open_ & ~is_pass & (sequential.lower_end(of, budget) > 0)
        used[is_pass | is_fail] = n
        passed, failed, open_ = passed | is_pass, failed | is_fail, open_ & ~is_pass & ~is_fail
    return Rates(
        passed=float(passed.mean()), failed=float(failed.mean()), n_mean=float(used.mean()), n_most=int(used.max())
    )


def _moments(n, first, second, third) -> Moments:
    variance = second - first**2
    of_third = third - 3 * first * second + 2 * first**3
    return Moments(
        n=np.full_like(first, n),
        mean=first,
        sd=np.sqrt(variance * n / (n - 1)),
        skewness=of_third / variance**1.5 * math.sqrt(n * (n - 1)) / (n - 2),
    )
