"""
How often the rule of `sequential` is wrong on values like those that were measured, were their mean the limit itself.

The error rates that a verdict promises were simulated on made-up shapes; this resamples the real one. Values are
shifted so that their mean is the limit (of answers, the share of lost ones is moved to it), drawn again with
replacement in as many plans as are asked for, and judged at every look, all plans at once.
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
"""Times the nominal rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Of plans."""

    passed: float
    failed: float
    n_mean: float
    """sequences or items used."""

    @property
    def is_as_promised(self) -> bool:
        """Neither wrong verdict is much more frequent than nominally; a failure's level is for all of a release."""
        return max(self.passed, self.failed) <= WARNS_ABOVE * ALPHA


def at_the_limit(kept: PairedSample, limit: Limit, budget: Budget, *, n_resamples: int = N_RESAMPLES) -> Rates | None:
    """
    What verdicts on resampled values of *kept* come to where the truth is *limit*: each of them is wrong.

    None: there is nothing to resample, since the values do not vary or no such share of answers exists.
    """
    rng = np.random.default_rng(0)
    size = (n_resamples, budget.n_planned)
    if isinstance(kept, PairedAnswers):
        sign = 1 if limit.kind == "max" else -1
        values = sign * np.array(kept.answers, dtype=np.int64)
        won = float((values < 0).mean())
        lost = won + sign * limit.value
        if not 0 <= lost <= 1 - won:
            return None
        drawn = rng.random(size)
        return of_answers((drawn < lost).astype(np.int64) - (drawn > 1 - won), sign * limit.value, budget)
    top, bottom = (np.array(column) for column in (kept.numerators, kept.denominators))
    badness = (1 if limit.kind == "max" else -1) * (top - limit.value * bottom)
    badness -= badness.mean()
    if not badness.std() > 1e-9 * abs(limit.value) * bottom.mean():
        return None
    chosen = rng.integers(0, len(badness), size)
    return of_ratios(badness[chosen], budget, _worst(kept, limit, budget))


def _worst(kept: PairedRatio, limit: Limit, budget: Budget) -> float | None:
    """The badness of the value that a guarded pass adds, as `sequential` has it."""
    sign = 1 if limit.kind == "max" else -1
    if not budget.is_guarded or kept.ideal_value is None or sign * (limit.value - kept.ideal_value) <= 0:
        return None
    return float((sequential.GUARD_FACTOR - 1) * abs(limit.value - kept.ideal_value) * np.mean(kept.denominators))


def of_ratios(badness: Floats, budget: Budget, worst: float | None) -> Rates:
    """The rule of `sequential.decide` on *badness* (plans, n): top - limit x bottom, turned so that above 0 is bad."""
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


def of_answers(values: NDArray[np.int64], limit: float, budget: Budget) -> Rates:
    """The same of *values* (plans, n) of -1, 0 and 1 whose mean may be *limit* at most, of a list without end."""
    looks = np.array(list(budget.looks(values.shape[1])))
    passed = betting.log_capital(values, limit, None)[:, looks - 1] >= -math.log(ALPHA)
    failed = betting.log_capital(-values, -limit, None)[:, looks - 1] >= -math.log(budget.alpha_to_fail)
    return _rates(passed, failed, looks, values.shape[1])


def _rates(passed: NDArray[np.bool_], failed: NDArray[np.bool_], looks: NDArray[np.int64], n_values: int) -> Rates:
    """Of what each look (plans, looks) says by itself; the first that decides is final, and passing comes first."""
    first = [np.where(each.any(axis=1), each.argmax(axis=1), len(looks)) for each in (passed, failed)]
    used = np.r_[looks, n_values][np.minimum(*first)]
    is_pass, is_fail = (first[0] <= first[1]) & (first[0] < len(looks)), first[1] < first[0]
    return Rates(passed=float(is_pass.mean()), failed=float(is_fail.mean()), n_mean=float(used.mean()))


def _moments(n: int, first: Floats, second: Floats, third: Floats) -> Moments:
    """Of the first *n* values, from the means of their powers; where nothing varies there is no skewness."""
    variance = np.maximum(second - first**2, 0)
    of_third = third - 3 * first * second + 2 * first**3
    skewness = np.divide(of_third, variance**1.5, out=np.zeros_like(first), where=variance > 0)
    return Moments(
        n=np.full_like(first, n),
        mean=first,
        sd=np.sqrt(variance * n / (n - 1)),
        skewness=skewness * math.sqrt(n * (n - 1)) / (n - 2),
    )
