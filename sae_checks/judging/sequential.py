"""
Values in the order of the plan x limit -> passed, failed or inconclusive, as early as the evidence allows.

Whoever may stop when the numbers look good needs limits that hold whenever they stop. For numbers on a continuous scale
these are a t-mixture confidence sequence whose ends are corrected for skewness and, towards a pass, for one value five
times the limit that was not met by chance; for right and wrong they are `betting`'s. A decision is a function of the
values and the budget alone: not of how the values were measured, nor of what came behind it.

Source: the confidence sequence, arXiv 2103.06476 and 2310.03722; the skewness, Hall, The Bootstrap and Edgeworth
Expansion (1992), section 3.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize

from sae_checks.judging import betting
from sae_checks.judging.bounds import Moments, boundary, ends, lower_end, moments, together, upper_end
from sae_checks.judging.budget import ALPHA, N_LEAST, Budget
from sae_checks.judging.limits import Limit
from sae_checks.judging.samples import Answers, Sample

WORST = 5.0
"""Times the limit: the value that is added before a pass."""
_N_DOUBLINGS = 20
"""Of its distance at the value itself: an end that is not found so near is none."""
_MOST_ERRORS = 1e6
TO_PASS, TO_FAIL = 2.9, 4.3
"""Standard errors between value and limit that decide, about, for the guess of how many more it takes."""

Outcome = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the first decisive look saw; the last one if none was."""

    outcome: Outcome
    measure: str
    """that was tested: the limited one, or the mean that stands in for it."""
    n_used: int
    n_most: int
    """that there are to be looked at."""
    value: float
    """of the measure, over the first *n_used*."""
    low: float | None
    high: float | None
    """None: so few have no bound. The end on the bad side of a limit is at ALPHA, the other at ALPHA / n_checks."""
    worst: float
    """of one sequence or item."""
    skewness: float
    """of what is tested, towards the bad side."""
    n_needed: int | None
    """about how many would decide, were they like these; None where it is decided, or the value is the limit."""


def decide(sample: Sample | Answers, limit: Limit, budget: Budget) -> Decision:
    """
    Look at *sample* as *budget* says; the first look that decides is final.

    Below N_LEAST values the look is at all of them, and it is inconclusive.
    """
    if isinstance(sample, Answers):
        return _decide_answers(sample, limit, budget)
    test = _Test(sample, limit, budget)
    looks = list(budget.looks(sample.n, n_silent=sample.n_silent))
    for n, outcome in zip(looks, test.outcomes(looks), strict=True):
        if outcome != "inconclusive":
            return test.decision(outcome, n)
    return test.decision("inconclusive", looks[-1] if looks else sample.n)


class _Test:
    """One sample against one limit: badness = top - r bottom, turned so that above zero is beyond the limit."""

    def __init__(self, sample: Sample, limit: Limit, budget: Budget) -> None:
        self._sample, self._budget, self._measure = sample, budget, limit.measure
        self._sign = 1.0 if limit.kind == "max" else -1.0
        self._limit = math.log(max(limit.value, math.ulp(0.0))) if sample.is_log else limit.value
        best = sample.best
        self._guard: float | None = None
        if budget.is_guarded and best is not None and self._sign * (self._limit - best) > 0:
            self._guard = best + WORST * (self._limit - best)

    def outcomes(self, looks: Sequence[int]) -> list[Outcome]:
        """What each look says by itself."""
        if not looks:
            return []
        of = together([self._badness(n, self._limit) for n in looks])
        can_pass = np.array([self._is_ratio(n) for n in looks])
        can_fail = can_pass.copy()
        can_pass &= of.n >= self._budget.n_least_to_pass
        worst = None if self._guard is None else np.array([self._worst(n, self._limit) for n in looks])
        passed = can_pass & (upper_end(of, self._budget, worst) < 0)
        failed = can_fail & (lower_end(of, self._budget) > 0)
        return ["passed" if p else "failed" if f else "inconclusive" for p, f in zip(passed, failed, strict=True)]

    def decision(self, outcome: Outcome, n: int) -> Decision:
        top, bottom = self._sample.upto(n)
        ratio = math.fsum(top) / math.fsum(bottom)
        each = self._sample.each(n)
        of = self._badness(n, ratio) if n > 1 else None
        beyond = self._limit if outcome != "inconclusive" else None
        bad = self._end(n, ratio, beyond if outcome == "passed" else None, is_bad=True) if of is not None else None
        good = self._end(n, ratio, beyond if outcome == "failed" else None, is_bad=False) if of is not None else None
        low, high = (good, bad) if self._sign > 0 else (bad, good)
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
        )

    def _is_ratio(self, n: int) -> bool:
        """The denominator is known to be above zero; else top - r bottom says nothing of top / bottom."""
        if self._sample.has_positive_bottoms:
            return True
        bottom = moments(self._sample.upto(n)[1])
        lower, _ = ends(bottom, boundary(bottom.n, ALPHA, self._budget.n_tightest), np.zeros_like(bottom.n))
        return float(lower) > 0

    def _badness(self, n: int, at: float) -> Moments:
        top, bottom = self._sample.upto(n)
        return moments(self._sign * (top - at * bottom))

    def _worst(self, n: int, at: float) -> float:
        """The badness of a sequence of mean length that is as bad as the guard has it."""
        assert self._guard is not None
        return self._sign * (self._guard - at) * math.fsum(self._sample.upto(n)[1]) / n

    def _end(self, n: int, ratio: float, beyond: float | None, *, is_bad: bool) -> float | None:
        """
        The ratio at which badness is, at this end of its interval, zero; None: so few have no such end.

        *beyond* lies behind it, where that is known: the limit of what was decided, so that the interval says the same.
        """
        outwards = self._sign if is_bad else -self._sign
        within, off = ratio, self._off(n, ratio, is_bad=is_bad)
        if not math.isfinite(off):
            return None
        if off <= 0 if is_bad else off >= 0:  # nothing varies, and rounding has the last word
            return ratio
        step = abs(off) * n / math.fsum(self._sample.upto(n)[1])
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
            return float(lower_end(of, self._budget))
        return float(upper_end(of, self._budget, None if self._guard is None else np.asarray(self._worst(n, at))))

    def _n_needed(self, n: int) -> int | None:
        of = self._badness(n, self._limit)
        return _needed(float(of.mean), float(of.sd))

    def _shown(self, ratio: float) -> float:
        if not self._sample.is_log:
            return ratio
        return math.exp(min(ratio, 700.0))  # exp overflows float64


def _needed(badness: float, sd: float) -> int | None:
    """How many values it takes about until their mean is told from zero; None: more than anybody has."""
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
        bad = sign * betting.end(values, ALPHA, sample.n_listed)
        good = -sign * betting.end(-values, budget.alpha_to_fail, sample.n_listed)
        ends_of = (good, bad) if sign > 0 else (bad, good)
    of = moments(values.astype(np.float64)) if n > 1 else None
    off = value - limit.value
    needed = None
    if outcome == "inconclusive" and of is not None:
        # as if what is not equal were as frequent as the limit allows, at least: of few flips none may have come
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
