"""
The sequential decision: values in the order of the plan and a limit -> passed, failed or inconclusive.

Stopping early needs bounds that hold whenever one stops. Values on a continuous scale use those of `bounds`; towards a
pass, these also allow for one value of several times the limit that the sample missed by chance. A pass of a cost whose
unit is known beforehand is decided by `capped_bet` alone: whichever of two tests passes first would be wrong twice as
often. Right and wrong answers use `betting`. A decision depends only on the values up to it and on the budget, not on
how the values were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import optimize

from sae_checks.judging import betting
from sae_checks.judging.bounds import Moments, boundary, interval_ends, joined, lower_bound, moments, upper_bound
from sae_checks.judging.budget import ALPHA, N_LEAST, Budget
from sae_checks.judging.capped_bet import CappedBet
from sae_checks.judging.limits import Limit
from sae_checks.judging.samples import Answers, Sample

_N_DOUBLINGS = 20
"""of the step in the search for an end of an interval; an end further out is reported as none."""
_N_HALVINGS = 20
_MOST_ERRORS = 1e6
TO_PASS, TO_FAIL = 2.9, 4.3
"""Approximate standard errors between value and limit that decide; they estimate how many values are needed."""

Outcome = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The first look that decides, or the last look if none does."""

    outcome: Outcome
    measure: str
    """the tested one: the limited measure, or its proxy."""
    n_used: int
    """sequences or items up to the look."""
    n_most: int
    """sequences or items that can be measured."""
    value: float
    """of the measure, over the first *n_used*."""
    low: float | None
    high: float | None
    """None: too few values for a bound. The end on the bad side is at level ALPHA, the other at ALPHA / n_checks."""
    worst: float
    """value of the worst sequence or item."""
    skewness: float
    """of the tested values, positive towards the bad side."""
    n_needed: int | None
    """about how many like these would decide; None: decided, or the value is too close to the limit."""
    costliest: int | None = None
    """row of the sequence that costs most, in the unit of the bet; None: no bet decides."""
    costliest_times: float | None = None
    """how many times the limit it costs, as if it were of full length."""

    @property
    def is_early(self) -> bool:
        """Whether it was reached before the last value; then *value* is biased away from the limit."""
        return self.outcome != "inconclusive" and self.n_used < self.n_most


def decide(sample: Sample | Answers, limit: Limit, budget: Budget) -> Decision:
    """
    Decide whether the measure of *sample* is within *limit*, at the first look of *budget* that can.

    With fewer than N_LEAST values the decision is inconclusive.
    """
    if isinstance(sample, Answers):
        return _decide_answers(sample, limit, budget)
    test = _Test(sample, limit, budget)
    looks = list(budget.looks(sample.n, n_without_value=sample.n_without_value))
    for n, outcome in zip(looks, test.outcomes(looks), strict=True):
        if outcome != "inconclusive":
            return test.decision(outcome, n)
    return test.decision("inconclusive", looks[-1] if looks else sample.n)


def passing_limit(sample: Sample, limit: Limit, budget: Budget) -> float | None:
    """The limit nearest to the value that all of *sample* passes, of the kind of *limit*; None: none does."""
    n, sign = sample.n, 1.0 if limit.kind == "max" else -1.0

    def passes(distance: float) -> bool:
        test = _Test(sample, replace(limit, value=value + sign * distance), budget)
        return test.outcomes([n]) == ["passed"]

    value = math.fsum(sample.first(n)[0]) / math.fsum(sample.first(n)[1])
    start = max(abs(value - (sample.ideal_value or 0.0)), 1e-9)
    high = next((start * 2.0**k for k in range(-10, _N_DOUBLINGS) if passes(start * 2.0**k)), None)
    if high is None:
        return None
    low = 0.0
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return value + sign * high


class _Test:
    """The test of a sample against a limit r: badness = numerator - r denominator, signed so that above 0 is bad."""

    def __init__(self, sample: Sample, limit: Limit, budget: Budget) -> None:
        self._sample, self._budget, self._measure = sample, budget, limit.measure
        self._sign = 1.0 if limit.kind == "max" else -1.0
        self._limit = math.log(max(limit.value, math.ulp(0.0))) if sample.is_log else limit.value
        ideal = sample.ideal_value
        self._guard: float | None = None
        if budget.is_guarded and ideal is not None and self._sign * (self._limit - ideal) > 0:
            self._guard = ideal + budget.worst(limit) * (self._limit - ideal)
        self._bet = CappedBet.of(sample, limit, budget)

    def outcomes(self, looks: Sequence[int]) -> list[Outcome]:
        """The outcome of each look by itself."""
        if not looks:
            return []
        of = joined([self._badness(n, self._limit) for n in looks])
        can_pass = np.array([self._is_ratio(n) for n in looks])
        failed = can_pass & (lower_bound(of, self._budget) > 0)
        if self._bet is not None:
            passed = self._bet.passes()[np.array(looks) - 1]
        else:
            worst = None if self._guard is None else np.array([self._worst(n, self._limit) for n in looks])
            enough = of.n >= self._budget.n_least_to_pass
            passed = can_pass & enough & (upper_bound(of, self._budget, worst) < 0)
        return ["passed" if p else "failed" if f else "inconclusive" for p, f in zip(passed, failed, strict=True)]

    def decision(self, outcome: Outcome, n: int) -> Decision:
        numerators, denominators = self._sample.first(n)
        ratio = math.fsum(numerators) / math.fsum(denominators)
        each = self._sample.each(n)
        of = self._badness(n, ratio) if n > 1 else None
        beyond = self._limit if outcome != "inconclusive" else None
        if self._bet is not None and outcome != "failed":
            bad = self._bet.upper_bound(n) if n else None
        else:
            bad = self._end(n, ratio, beyond if outcome == "passed" else None, is_bad=True) if of is not None else None
        good = self._end(n, ratio, beyond if outcome == "failed" else None, is_bad=False) if of is not None else None
        low, high = (good, bad) if self._sign > 0 else (bad, good)
        costliest, costliest_times = (None, None) if self._bet is None or n == 0 else self._bet.costliest(n)
        return Decision(
            outcome=outcome,
            measure=self._measure,
            n_used=n,
            n_most=self._budget.n_most,
            value=self._shown(ratio),
            low=None if low is None else self._shown(low),
            high=None if high is None else self._shown(high),
            worst=self._shown(float(each.max() if self._sign > 0 else each.min())),
            skewness=0.0 if of is None else float(of.skewness),
            n_needed=None if outcome != "inconclusive" or of is None else self._n_needed(n),
            costliest=costliest,
            costliest_times=costliest_times,
        )

    def _is_ratio(self, n: int) -> bool:
        """Whether the denominator is surely above 0; otherwise the sign of the badness says nothing about the ratio."""
        if self._sample.has_positive_denominators:
            return True
        denominators = moments(self._sample.first(n)[1])
        lower, _ = interval_ends(
            denominators, boundary(denominators.n, ALPHA, self._budget.n_tightest), np.zeros_like(denominators.n)
        )
        return float(lower) > 0

    def _badness(self, n: int, at: float) -> Moments:
        numerators, denominators = self._sample.first(n)
        return moments(self._sign * (numerators - at * denominators))

    def _worst(self, n: int, at: float) -> float:
        """The badness of the guard's value, in a sequence of mean length."""
        assert self._guard is not None
        return self._sign * (self._guard - at) * math.fsum(self._sample.first(n)[1]) / n

    def _end(self, n: int, ratio: float, beyond: float | None, *, is_bad: bool) -> float | None:
        """
        The end of the ratio's interval: the ratio r at which the bound on the badness is 0; None: there is none.

        *beyond* is a ratio known to lie beyond the end: the limit, if the decision says so.
        """
        outwards = self._sign if is_bad else -self._sign
        within, off = ratio, self._off(n, ratio, is_bad=is_bad)
        if not math.isfinite(off):
            return None
        if off <= 0 if is_bad else off >= 0:  # WHY: nothing varies, and the sign is rounding
            return ratio
        step = abs(off) * n / math.fsum(self._sample.first(n)[1])
        for _ in range(_N_DOUBLINGS):
            at = within + outwards * step if beyond is None else beyond
            found = self._off(n, at, is_bad=is_bad)
            if found * off <= 0:
                return float(optimize.brentq(lambda r: self._off(n, r, is_bad=is_bad), within, at, xtol=1e-300))
            within, step = at, 2 * step
        return None

    def _off(self, n: int, at: float, *, is_bad: bool) -> float:
        of = self._badness(n, at)
        if not is_bad:
            return float(lower_bound(of, self._budget))
        return float(upper_bound(of, self._budget, None if self._guard is None else np.asarray(self._worst(n, at))))

    def _n_needed(self, n: int) -> int | None:
        of = self._badness(n, self._limit)
        if self._bet is not None and of.mean < 0:
            return self._bet.n_needed(n)
        needed = _needed(float(of.mean), float(of.sd))
        if needed is None or self._guard is None or of.mean > 0:
            return needed
        # the guard's value alone adds so many times its distance to the upper bound, over n
        return max(needed, math.ceil((1 + TO_PASS) * (self._worst(n, self._limit) / -float(of.mean) + 1)))

    def _shown(self, ratio: float) -> float:
        if not self._sample.is_log:
            return ratio
        return math.exp(min(ratio, 700.0))  # WHY: exp overflows float64


def _needed(badness: float, sd: float) -> int | None:
    """About how many values it takes to tell their mean from 0; None: too many."""
    errors = (TO_PASS if badness < 0 else TO_FAIL) * sd
    return max(N_LEAST, math.ceil((errors / badness) ** 2)) if errors < _MOST_ERRORS * abs(badness) else None


def _decide_answers(sample: Answers, limit: Limit, budget: Budget) -> Decision:
    sign = 1 if limit.kind == "max" else -1
    values, bad, n_listed = sign * sample.values, sign * limit.value, sample.n_listed
    against = betting.log_capital(values, bad, n_listed) + math.log(ALPHA)
    towards = betting.log_capital(-values, -bad, n_listed) + math.log(budget.alpha_to_fail)
    outcome: Outcome = "inconclusive"
    n = sample.n
    looks = list(budget.looks(n))
    for n in looks:
        if n == n_listed:
            outcome = "passed" if limit.allows(int(sample.values[:n].sum()) / n) else "failed"
        elif against[n - 1] >= 0:
            outcome = "passed"
        elif towards[n - 1] >= 0:
            outcome = "failed"
        if outcome != "inconclusive":
            break
    return _decision_on_answers(sample, limit, budget, outcome, n)


def _decision_on_answers(sample: Answers, limit: Limit, budget: Budget, outcome: Outcome, n: int) -> Decision:
    sign = 1 if limit.kind == "max" else -1
    values = sign * sample.values[:n]
    value = int(sample.values[:n].sum()) / n
    ends_of = (value, value)
    if n != sample.n_listed:
        bad = sign * betting.upper_bound(values, ALPHA, sample.n_listed)
        good = -sign * betting.upper_bound(-values, budget.alpha_to_fail, sample.n_listed)
        ends_of = (good, bad) if sign > 0 else (bad, good)
    of = moments(values.astype(np.float64)) if n > 1 else None
    off = value - limit.value
    needed = None
    if outcome == "inconclusive" and of is not None:
        # WHY at least the limit's: rare changes of answers may not have occurred yet
        spread = max(float(of.sd) ** 2, abs(limit.value) * (1 - abs(limit.value)))
        needed = _needed(sign * off, math.sqrt(spread))
        if sample.n_listed is not None:
            needed = min(needed or sample.n_listed, sample.n_listed)
    return Decision(
        outcome=outcome,
        measure=limit.measure,
        n_used=n,
        n_most=budget.n_most,
        value=value,
        low=ends_of[0],
        high=ends_of[1],
        worst=float(sign * values.max()),
        skewness=0.0 if of is None else float(of.skewness),
        n_needed=needed,
    )
