"""
Error rates of the rule of `sequential` at a limit, from resampled values.

Simulations on artificial distributions set the rule's error rates; this checks them on the measured values. Values are
shifted so that their mean is the limit (for answers, the share of lost ones is changed). Plans are drawn from them with
replacement and judged at every look. Every verdict on them is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_checks.judging import betting, bounds, sequential
from sae_checks.judging.bounds import Moments
from sae_checks.judging.budget import ALPHA, Budget
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio, PairedSample
from sae_checks.losses import Floats

N_RESAMPLES = 2000
WARNS_ABOVE = 1.5
"""times the nominal rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRates:
    """Shares of plans with a wrong verdict."""

    passed: float
    failed: float
    n_mean: float
    """mean number of sequences or items used."""

    @property
    def is_as_promised(self) -> bool:
        """Whether neither rate is far above ALPHA. TRAP: for failures ALPHA is the rate of a whole release."""
        return max(self.passed, self.failed) <= WARNS_ABOVE * ALPHA


def rates_at_limit(
    sample: PairedSample, limit: Limit, budget: Budget, *, n_resamples: int = N_RESAMPLES
) -> ErrorRates | None:
    """
    Rates of wrong verdicts on resampled values of *sample* whose true mean is *limit*.

    Returns:
        None if the values do not vary, or if no share of answers has that mean.
    """
    rng = np.random.default_rng(0)
    size = (n_resamples, budget.n_planned)
    if isinstance(sample, PairedAnswers):
        sign = 1 if limit.kind == "max" else -1
        values = sign * np.array(sample.answers, dtype=np.int64)
        won = float((values < 0).mean())
        lost = won + sign * limit.value
        if not 0 <= lost <= 1 - won:
            return None
        drawn = rng.random(size)
        return answer_error_rates((drawn < lost).astype(np.int64) - (drawn > 1 - won), sign * limit.value, budget)
    numerators, denominators = (np.array(column) for column in (sample.numerators, sample.denominators))
    badness = (1 if limit.kind == "max" else -1) * (numerators - limit.value * denominators)
    badness -= badness.mean()
    if not badness.std() > 1e-9 * abs(limit.value) * denominators.mean():
        return None
    chosen = rng.integers(0, len(badness), size)
    return ratio_error_rates(badness[chosen], budget, _worst(sample, limit, budget))


def _worst(sample: PairedRatio, limit: Limit, budget: Budget) -> float | None:
    """The badness of the value that the guard of `sequential` adds; None: no guard."""
    sign = 1 if limit.kind == "max" else -1
    if not budget.is_guarded or sample.ideal_value is None or sign * (limit.value - sample.ideal_value) <= 0:
        return None
    return float((sequential.GUARD_FACTOR - 1) * abs(limit.value - sample.ideal_value) * np.mean(sample.denominators))


def ratio_error_rates(badness: Floats, budget: Budget, worst: float | None) -> ErrorRates:
    """
    Error rates of `sequential.decide` on ratios.

    *badness* (plans, n) is numerator - limit x denominator, with its sign such that above 0 is bad.
    """
    n_values = badness.shape[1]
    sums = [np.cumsum(badness**power, axis=1) for power in (1, 2, 3)]
    looks = list(budget.looks(n_values))
    decided = np.zeros((2, len(badness), len(looks)), dtype=np.bool_)  # passed, failed
    for i, n in enumerate(looks):
        of = _moments(n, *(column[:, n - 1] / n for column in sums))
        upper = bounds.upper_bound(of, budget, None if worst is None else np.asarray(worst))
        decided[0, :, i] = (n >= budget.n_least_to_pass) & (upper < 0)
        decided[1, :, i] = bounds.lower_bound(of, budget) > 0
    return _rates(decided[0], decided[1], np.array(looks), n_values)


def answer_error_rates(values: NDArray[np.int64], limit: float, budget: Budget) -> ErrorRates:
    """Error rates on answers: *values* (plans, n) of -1, 0 and 1 whose mean may be at most *limit*."""
    looks = np.array(list(budget.looks(values.shape[1])))
    passed = betting.log_capital(values, limit, None)[:, looks - 1] >= -math.log(ALPHA)
    failed = betting.log_capital(-values, -limit, None)[:, looks - 1] >= -math.log(budget.alpha_to_fail)
    return _rates(passed, failed, looks, values.shape[1])


def _rates(passed: NDArray[np.bool_], failed: NDArray[np.bool_], looks: NDArray[np.int64], n_values: int) -> ErrorRates:
    """Error rates from the outcome of each look (plans, looks): the first decision is final, passing comes first."""
    first = [np.where(each.any(axis=1), each.argmax(axis=1), len(looks)) for each in (passed, failed)]
    used = np.r_[looks, n_values][np.minimum(*first)]
    is_pass, is_fail = (first[0] <= first[1]) & (first[0] < len(looks)), first[1] < first[0]
    return ErrorRates(passed=float(is_pass.mean()), failed=float(is_fail.mean()), n_mean=float(used.mean()))


def _moments(n: int, first: Floats, second: Floats, third: Floats) -> Moments:
    """Moments of *n* values from the means of their powers; the skewness is 0 if they do not vary."""
    variance = np.maximum(second - first**2, 0)
    of_third = third - 3 * first * second + 2 * first**3
    skewness = np.divide(of_third, variance**1.5, out=np.zeros_like(first), where=variance > 0)
    return Moments(
        n=np.full_like(first, n),
        mean=first,
        sd=np.sqrt(variance * n / (n - 1)),
        skewness=skewness * math.sqrt(n * (n - 1)) / (n - 2),
    )
