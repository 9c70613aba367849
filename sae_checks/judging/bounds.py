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
    """Moments of some values: numbers, or arrays with one entry per look or replication."""

    n: Floats
    mean: Floats
    sd: Floats
    skewness: Floats
    """Fisher-Pearson coefficient, adjusted for n."""


def boundary(n: Floats, alpha: float, n_tightest: float) -> Floats:
    """Standard errors beyond which the mean is, at any n, with probability *alpha* (one-sided); (...) like *n*."""
    spent = -2 * math.log(2 * alpha)
    n = np.asarray(n, dtype=np.float64)
    mixed = n * (spent + math.log1p(spent)) / n_tightest
    w = ((2 * alpha) ** 2 / (1 + mixed)) ** (1 / n)
    bracket = mixed / (1 + mixed) - 1 + w
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bracket > 0, np.sqrt((n - 1) * (1 - w) / bracket), np.inf)


def interval_ends(of: Moments, below: Floats, above: Floats) -> tuple[Floats, Floats]:
    """
    The ends of the interval around the mean, corrected for skewness.

    Args:
        of: the moments.
        below: standard errors between the lower end and the mean; infinite: no such end.
        above: standard errors between the mean and the upper end.
    """
    error = of.sd / np.sqrt(of.n)
    slant = of.skewness / np.sqrt(of.n)
    with np.errstate(invalid="ignore"):  # WHY: 0 x inf, where nothing varies and no end is known
        upper = of.mean + error * np.maximum(above, -_hall(-above, slant))
        lower = of.mean - error * _hall(below, slant)
    return np.where(np.isinf(below), -np.inf, lower), np.where(np.isinf(above), np.inf, upper)


def with_added_value(of: Moments, value: Floats) -> Moments:
    """The moments after one more *value*, with skewness 0. WHY: one extreme value would dominate the skewness."""
    off = value - of.mean
    variance = ((of.n - 1) * of.sd**2 + off**2 * of.n / (of.n + 1)) / of.n
    return Moments(
        n=of.n + 1, mean=of.mean + off / (of.n + 1), sd=np.sqrt(variance), skewness=np.zeros_like(of.skewness)
    )


def moments(values: Floats) -> Moments:
    """Moments of at least two *values*. WHY fsum: exact sums do not depend on order or instruction set."""
    n = len(values)
    mean = math.fsum(values) / n
    off = values - mean
    scale = float(np.abs(off).max()) or 1.0
    off = off / scale
    second, third = math.fsum(off**2) / n, math.fsum(off**3) / n
    skewness = third / second**1.5 * math.sqrt(n * (n - 1)) / (n - 2) if second > 0 and n > 2 else 0.0
    numbers = (float(n), mean, scale * math.sqrt(second * n / (n - 1)), skewness)
    return Moments(**dict(zip(("n", "mean", "sd", "skewness"), map(np.asarray, numbers), strict=True)))


def joined(each: Sequence[Moments]) -> Moments:
    """*each*, the moments of several looks, as arrays."""
    return Moments(**{f.name: np.array([getattr(of, f.name) for of in each]) for f in fields(Moments)})


def upper_bound(of: Moments, budget: Budget, worst: Floats | None) -> Floats:
    """The upper bound on the mean at level ALPHA, also after one more value *worst* if that is given."""
    _, upper = interval_ends(of, np.zeros_like(of.n), boundary(of.n, ALPHA, budget.n_tightest))
    if worst is None:
        return upper
    met = with_added_value(of, worst)
    _, guarded = interval_ends(met, np.zeros_like(of.n), boundary(met.n, ALPHA, budget.n_tightest))
    return np.maximum(upper, guarded)


def lower_bound(of: Moments, budget: Budget) -> Floats:
    """The lower bound on the mean at level ALPHA / n_checks."""
    lower, _ = interval_ends(of, boundary(of.n, budget.alpha_to_fail, budget.n_tightest), np.zeros_like(of.n))
    return lower


def _hall(y: Floats, slant: Floats) -> Floats:
    """Hall's cubic, inverted: the quantile of a skewed t statistic that matches the quantile *y* of Student's."""
    shifted = y - slant / 6
    safe = np.where(np.abs(slant) < 1e-9, 1.0, slant)
    cubic = 3 / safe * (np.cbrt(1 + safe * shifted) - 1)
    return np.where(np.abs(slant) < 1e-9, shifted - slant * y**2 / 3, cubic)
