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

from sae_checks.judging import betting, bounds
from sae_checks.judging.bounds import Moments
from sae_checks.judging.budget import ALPHA, WORST, Budget
from sae_checks.judging.capped_bet import CappedBet
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio, PairedSample
from sae_checks.losses import Floats

N_RESAMPLES = 2000
WARNS_ABOVE = 1.5
"""times the nominal rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToPass:
    """How a pass of ratios is decided, see `sequential`: by the bet, or by the t-mixture."""

    bet_unit: float | None = None
    """distance from the ideal value to the limit, times the largest denominator; None: the t-mixture decides."""
    worst: float = WORST
    """how many times the limit a sequence may cost, in a bet."""
    guard: float | None = None
    """badness of the value that the guard of the t-mixture adds; None: no guard."""


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
    return ratio_error_rates(badness[chosen], budget, _to_pass(sample, limit, budget))


def _to_pass(sample: PairedRatio, limit: Limit, budget: Budget) -> ToPass:
    worst, ideal = budget.worst(limit), sample.ideal_value
    if (bet := CappedBet.of(sample.first(sample.n), limit, budget)) is not None:
        assert sample.largest_denominator is not None
        return ToPass(bet_unit=(bet.limit - bet.ideal) * sample.largest_denominator, worst=worst)
    sign = 1 if limit.kind == "max" else -1
    if not budget.is_guarded or ideal is None or sign * (limit.value - ideal) <= 0:
        return ToPass()
    return ToPass(guard=float((worst - 1) * abs(limit.value - ideal) * np.mean(sample.denominators)))


def ratio_error_rates(badness: Floats, budget: Budget, to_pass: ToPass) -> ErrorRates:
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
        decided[1, :, i] = bounds.lower_bound(of, budget) > 0
        if to_pass.bet_unit is None:
            upper = bounds.upper_bound(of, budget, None if to_pass.guard is None else np.asarray(to_pass.guard))
            decided[0, :, i] = (n >= budget.n_least_to_pass) & (upper < 0)
    if to_pass.bet_unit is not None:
        capital = betting.log_capital_on_costs(badness / to_pass.bet_unit, to_pass.worst)
        decided[0] = capital[:, np.array(looks) - 1] >= -math.log(ALPHA)
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
