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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from scipy import optimize

from sae_checks.judging import betting
from sae_checks.judging.samples import Answers, Sample
from sae_checks.judging.thresholds import Limit
from sae_checks.losses import Floats

ALPHA = 0.05
"""Chance that one check passes an SAE beyond its limit; and that any check of a release fails one within its limit."""

N_BETWEEN_LOOKS = 8
N_LEAST = 8
"""Sequences or items below which nothing is decided."""
N_SMOKE = 64
"""A plan of no more sequences can pass at half of N_LEAST_TO_PASS."""
N_LEAST_TO_PASS = 32
N_GUARDED = 128
"""A plan of so many pays for the guard against what was not met."""
WORST = 5.0
"""Times the limit: the value that is added before a pass."""
_N_DOUBLINGS = 20
"""Of its distance at the value itself: an end that is not found so near is none."""
_MOST_ERRORS = 1e6
TO_PASS, TO_FAIL = 2.9, 4.3
"""Standard errors between value and limit that decide, about, for the guess of how many more it takes."""

Outcome = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a verdict may spend: settled with the plan, never from what was measured."""

    n_planned: int
    """sequences or items of the plan; an extension does not change it, and with it none of the bounds."""
    n_most: int
    """that can be measured: the extension's, or as many as the corpus has."""
    n_checks: int
    """of the whole release, whatever of it is judged."""

    @property
    def alpha_to_fail(self) -> float:
        return ALPHA / self.n_checks

    @property
    def n_tightest(self) -> float:
        """Where the bounds are tightest for their level."""
        return max(32.0, self.n_planned / 4)

    @property
    def n_least_to_pass(self) -> int:
        return N_LEAST_TO_PASS // 2 if self.n_planned <= N_SMOKE else N_LEAST_TO_PASS

    @property
    def is_guarded(self) -> bool:
        return self.n_planned >= N_GUARDED

    def looks(self, n: int, *, n_silent: int = 0) -> Iterator[int]:
        """Numbers of values at which is looked, of *n* that are there; *n_silent* more were measured for nothing."""
        for look in range(1, n + 1):
            is_last = look == n and n + n_silent == self.n_most
            if look >= N_LEAST and (look % N_BETWEEN_LOOKS == 0 or is_last):
                yield look


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Of some values; a number, or one per replication."""

    n: Floats
    mean: Floats
    sd: Floats
    skewness: Floats
    """Fisher and Pearson's, adjusted for n."""


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


def boundary(n: Floats, alpha: float, n_tightest: float) -> Floats:
    """Standard errors that the mean of *n* values strays with probability *alpha* to one side, at any n at all."""
    spent = -2 * math.log(2 * alpha)
    n = np.asarray(n, dtype=np.float64)
    mixed = n * (spent + math.log1p(spent)) / n_tightest
    w = ((2 * alpha) ** 2 / (1 + mixed)) ** (1 / n)
    bracket = mixed / (1 + mixed) - 1 + w
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bracket > 0, np.sqrt((n - 1) * (1 - w) / bracket), np.inf)


def ends(of: Moments, below: Floats, above: Floats) -> tuple[Floats, Floats]:
    """The mean less and more so many standard errors, *below* and *above* it, as its skewness has it."""
    error = of.sd / np.sqrt(of.n)
    slant = of.skewness / np.sqrt(of.n)
    with np.errstate(invalid="ignore"):  # nothing varies and nothing is known: 0 x inf
        upper = of.mean + error * np.maximum(above, -_hall(-above, slant))
        lower = of.mean - error * _hall(below, slant)
    return np.where(np.isinf(below), -np.inf, lower), np.where(np.isinf(above), np.inf, upper)


def with_one_more(of: Moments, value: Floats) -> Moments:
    """What becomes of the moments when *value* is met; skewness is left out: one such value would be nothing else."""
    off = value - of.mean
    variance = ((of.n - 1) * of.sd**2 + off**2 * of.n / (of.n + 1)) / of.n
    return Moments(
        n=of.n + 1, mean=of.mean + off / (of.n + 1), sd=np.sqrt(variance), skewness=np.zeros_like(of.skewness)
    )


def moments(values: Floats) -> Moments:
    """Of at least two values; the sums are exact, so that no order or instruction set moves a verdict."""
    n = len(values)
    mean = math.fsum(values) / n
    off = values - mean
    scale = float(np.abs(off).max()) or 1.0
    off = off / scale
    second, third = math.fsum(off**2) / n, math.fsum(off**3) / n
    skewness = third / second**1.5 * math.sqrt(n * (n - 1)) / (n - 2) if second > 0 and n > 2 else 0.0
    numbers = (float(n), mean, scale * math.sqrt(second * n / (n - 1)), skewness)
    return Moments(**dict(zip(("n", "mean", "sd", "skewness"), map(np.asarray, numbers), strict=True)))


def together(each: Sequence[Moments]) -> Moments:
    """The moments of several looks as those of one array."""
    return Moments(**{f.name: np.array([getattr(of, f.name) for of in each]) for f in fields(Moments)})


def upper_end(of: Moments, budget: Budget, worst: Floats | None) -> Floats:
    """What the mean is below but for ALPHA; *worst*: one value more, none to meet or None."""
    _, upper = ends(of, np.zeros_like(of.n), boundary(of.n, ALPHA, budget.n_tightest))
    if worst is None:
        return upper
    met = with_one_more(of, worst)
    _, guarded = ends(met, np.zeros_like(of.n), boundary(met.n, ALPHA, budget.n_tightest))
    return np.maximum(upper, guarded)


def lower_end(of: Moments, budget: Budget) -> Floats:
    """What the mean is above but for ALPHA / n_checks."""
    lower, _ = ends(of, boundary(of.n, budget.alpha_to_fail, budget.n_tightest), np.zeros_like(of.n))
    return lower


def _hall(y: Floats, slant: Floats) -> Floats:
    """Hall's cubic, inverted: the t statistic at which one that is skewed is as far out as *y* is in Student's."""
    shifted = y - slant / 6
    safe = np.where(np.abs(slant) < 1e-9, 1.0, slant)
    cubic = 3 / safe * (np.cbrt(1 + safe * shifted) - 1)
    return np.where(np.abs(slant) < 1e-9, shifted - slant * y**2 / 3, cubic)


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
