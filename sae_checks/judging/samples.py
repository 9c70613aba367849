"""
Samples: the values behind a verdict, per sequence or item in the order of the plan.

A verdict looks at the first n values, for growing n; later values never change what an earlier look saw. A ratio of
means r is tested as the mean of top - r bottom, which is zero at the true ratio. The mean of the sequences' own ratios
would be another quantity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sae_checks.losses import Counts, Floats

_LEAST = 1e-300
"""replaces zero before a logarithm."""


class Sample(Protocol):
    """A measure as a ratio of means, sum(top) / sum(bottom)."""

    @property
    def n(self) -> int:
        """Sequences or items with a value."""

    @property
    def n_silent(self) -> int:
        """Sequences without a value: they were measured but have no token that counts."""

    @property
    def best(self) -> float | None:
        """The ratio of an exact reconstruction; None: it has none."""

    @property
    def is_log(self) -> bool:
        """Whether the ratio is the logarithm of the measure."""

    @property
    def has_positive_bottoms(self) -> bool:
        """Whether bottoms are counts or squares, so that their mean is above 0."""

    def upto(self, n: int) -> tuple[Floats, Floats]:
        """(top, bottom) of the first *n* values; both (n,)."""

    def each(self, n: int) -> Floats:
        """The measure of each of the first *n* sequences, for messages; (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratio:
    """A ratio sum(top) / sum(bottom), or a mean, if every bottom is 1."""

    top: Floats
    bottom: Floats
    n_silent: int = 0
    best: float | None = None
    is_log: bool = False
    has_positive_bottoms: bool = True

    @property
    def n(self) -> int:
        return len(self.top)

    def upto(self, n: int) -> tuple[Floats, Floats]:
        return self.top[:n], self.bottom[:n]

    def each(self, n: int) -> Floats:
        return _quotients(self.top[:n], self.bottom[:n])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Difference:
    """
    The ratio *of* minus the ratio *less* over the same sequences.

    With t / b for *of*, t' / b' for *less* and r for the limit, the mean of
    (t - (R' + r) b) / mean(b) - (t' - R' b') / mean(b') is the difference minus r, for any R'. Only the spread of the
    terms depends on R', which is *less*'s estimate from the first n values. If all sequences are equally long, the
    terms are the sequences' own differences.
    """

    of: Sample
    less: Sample
    best: float | None = None

    @property
    def n(self) -> int:
        return self.of.n

    @property
    def n_silent(self) -> int:
        return self.of.n_silent

    @property
    def is_log(self) -> bool:
        return False

    @property
    def has_positive_bottoms(self) -> bool:
        return self.of.has_positive_bottoms and self.less.has_positive_bottoms

    def upto(self, n: int) -> tuple[Floats, Floats]:
        (top, bottom), (less_top, less_bottom) = self.of.upto(n), self.less.upto(n)
        mean, less_mean = math.fsum(bottom) / n, math.fsum(less_bottom) / n
        less = math.fsum(less_top) / math.fsum(less_bottom)
        residuals = (less_top - less * less_bottom) / less_mean
        return (top - less * bottom) / mean - residuals, bottom / mean

    def each(self, n: int) -> Floats:
        return self.of.each(n) - self.less.each(n)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogRoot:
    """
    The logarithm of the root of a ratio, or of one ratio over another, linearised at the estimate from the first n.

    The terms are the logarithm plus each sequence's influence on it, so that their mean is the logarithm.
    """

    of: Ratio
    over: Ratio | None = None
    best: float | None = None

    @property
    def n(self) -> int:
        return self.of.n

    @property
    def n_silent(self) -> int:
        return self.of.n_silent

    @property
    def is_log(self) -> bool:
        return True

    @property
    def has_positive_bottoms(self) -> bool:
        return True

    def upto(self, n: int) -> tuple[Floats, Floats]:
        terms = _log_terms(self.of, n)
        return terms - (0 if self.over is None else _log_terms(self.over, n)), np.ones(n)

    def each(self, n: int) -> Floats:
        of = self.of.each(n)
        over = 1 if self.over is None else np.maximum(self.over.each(n), _LEAST)
        return np.asarray(np.log(np.maximum(of / over, _LEAST)) / 2, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExplainedVariance:
    """
    Explained variance, 1 - sum |x - x^|^2 / sum |x - mean|^2, with the mean of the first n sequences.

    That mean is nearer to its own tokens than the true mean, so explained variance is slightly too low, never too high.
    """

    error_squared: Floats  # (n,)
    norm_squared: Floats  # (n,)
    sum: Floats  # (n, d)
    n_tokens: Counts  # (n,)
    n_silent: int = 0

    @property
    def n(self) -> int:
        return len(self.n_tokens)

    @property
    def best(self) -> float | None:
        return 1.0

    @property
    def is_log(self) -> bool:
        return False

    @property
    def has_positive_bottoms(self) -> bool:
        return True

    def upto(self, n: int) -> tuple[Floats, Floats]:
        of_x, n_tokens = self.sum[:n], self.n_tokens[:n]
        mean = of_x.sum(axis=0) / n_tokens.sum()  # (d,)
        # |x - mean|^2 summed over a sequence's tokens, from its sums alone
        spread = self.norm_squared[:n] - 2 * of_x @ mean + n_tokens * float(mean @ mean)  # (n,)
        return spread - self.error_squared[:n], spread

    def each(self, n: int) -> Floats:
        return _quotients(*self.upto(n))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """Answers of a fixed list of items: 0 or 1 per item for a share, -1, 0 or 1 for a difference of two."""

    values: NDArray[np.int64]
    n_listed: int | None = None
    """items of the whole list, of which these are the first in seeded order; None: unknown."""

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def n_silent(self) -> int:
        return 0


def _log_terms(of: Ratio, n: int) -> Floats:
    top, bottom = of.upto(n)
    mean_top, mean_bottom = math.fsum(top) / n, math.fsum(bottom) / n
    if mean_top <= 0 or mean_bottom <= 0:  # WHY: no error so far, whose logarithm would be -inf
        return np.full(n, math.log(_LEAST) / 2)
    return np.asarray((math.log(mean_top / mean_bottom) + top / mean_top - bottom / mean_bottom) / 2, dtype=np.float64)


def _quotients(top: Floats, bottom: Floats) -> Floats:
    """Top / bottom, and 0 where the bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(len(top)), where=bottom != 0)
