"""
Bounds on a mean that hold at every sample size at once: t-mixture confidence sequences, corrected for skewness.

Source: the confidence sequence, arXiv 2103.06476 and 2310.03722; the skewness, Hall, The Bootstrap and Edgeworth
Expansion (1992), section 3.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from sae_checks.judging.budget import ALPHA, Budget
from sae_checks.losses import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Of some values; a number, or one per replication."""

    n: Floats
    mean: Floats
    sd: Floats
    skewness: Floats
    """Fisher and Pearson's, adjusted for n."""


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
