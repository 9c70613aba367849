"""
Samples: the values behind a verdict, per sequence or item in the order of the plan.

A verdict looks at the first n values, for growing n; later values never change what an earlier look saw. A ratio of
means r is tested as the mean of numerator - r denominator, which is zero at the true ratio. The mean of the sequences'
own ratios would be another quantity.
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
    """A measure as a ratio of means, sum(numerators) / sum(denominators)."""

    @property
    def n(self) -> int:
        """Sequences or items with a value."""

    @property
    def n_without_value(self) -> int:
        """Sequences without a value: they were measured but have no token that counts."""

    @property
    def ideal_value(self) -> float | None:
        """The ratio of an exact reconstruction; None: it has none."""

    @property
    def is_log(self) -> bool:
        """Whether the ratio is the logarithm of the measure."""

    @property
    def has_positive_denominators(self) -> bool:
        """Whether bottoms are counts or squares, so that their mean is above 0."""

    def first(self, n: int) -> tuple[Floats, Floats]:
        """(numerators, denominators) of the first *n* values; both (n,)."""

    def each(self, n: int) -> Floats:
        """The measure of each of the first *n* sequences, for messages; (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratio:
    """A ratio sum(numerators) / sum(denominators), or a mean, if every denominator is 1."""

    numerators: Floats
    denominators: Floats
    n_without_value: int = 0
    ideal_value: float | None = None
    largest_denominator: float | None = None
    """of any sequence, known before one is measured, such as the context; None: unknown."""
    rows: Counts | None = None
    """(n,) row of each sequence in the losses; None: they are numbered as here."""
    is_log: bool = False
    has_positive_denominators: bool = True

    @property
    def n(self) -> int:
        return len(self.numerators)

    def first(self, n: int) -> tuple[Floats, Floats]:
        return self.numerators[:n], self.denominators[:n]

    def each(self, n: int) -> Floats:
        return _quotients(self.numerators[:n], self.denominators[:n])


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
    ideal_value: float | None = None

    @property
    def n(self) -> int:
        return self.of.n

    @property
    def n_without_value(self) -> int:
        return self.of.n_without_value

    @property
    def is_log(self) -> bool:
        return False

    @property
    def has_positive_denominators(self) -> bool:
        return self.of.has_positive_denominators and self.less.has_positive_denominators

    def first(self, n: int) -> tuple[Floats, Floats]:
        (numerators, denominators), (less_numerators, less_denominators) = self.of.first(n), self.less.first(n)
        mean, less_mean = math.fsum(denominators) / n, math.fsum(less_denominators) / n
        less = math.fsum(less_numerators) / math.fsum(less_denominators)
        residuals = (less_numerators - less * less_denominators) / less_mean
        return (numerators - less * denominators) / mean - residuals, denominators / mean

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
    ideal_value: float | None = None

    @property
    def n(self) -> int:
        return self.of.n

    @property
    def n_without_value(self) -> int:
        return self.of.n_without_value

    @property
    def is_log(self) -> bool:
        return True

    @property
    def has_positive_denominators(self) -> bool:
        return True

    def first(self, n: int) -> tuple[Floats, Floats]:
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
    n_without_value: int = 0

    @property
    def n(self) -> int:
        return len(self.n_tokens)

    @property
    def ideal_value(self) -> float | None:
        return 1.0

    @property
    def is_log(self) -> bool:
        return False

    @property
    def has_positive_denominators(self) -> bool:
        return True

    def first(self, n: int) -> tuple[Floats, Floats]:
        of_x, n_tokens = self.sum[:n], self.n_tokens[:n]
        mean = of_x.sum(axis=0) / n_tokens.sum()  # (d,)
        # |x - mean|^2 summed over a sequence's tokens, from its sums alone
        spread = self.norm_squared[:n] - 2 * of_x @ mean + n_tokens * float(mean @ mean)  # (n,)
        return spread - self.error_squared[:n], spread

    def each(self, n: int) -> Floats:
        return _quotients(*self.first(n))


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
    def n_without_value(self) -> int:
        return 0


def _log_terms(of: Ratio, n: int) -> Floats:
    numerators, denominators = of.first(n)
    mean_numerator, mean_denominator = math.fsum(numerators) / n, math.fsum(denominators) / n
    if mean_numerator <= 0 or mean_denominator <= 0:  # WHY: no error so far, whose logarithm would be -inf
        return np.full(n, math.log(_LEAST) / 2)
    terms = math.log(mean_numerator / mean_denominator) + numerators / mean_numerator - denominators / mean_denominator
    return np.asarray(terms / 2, dtype=np.float64)


def _quotients(numerators: Floats, denominators: Floats) -> Floats:
    """The quotients, and 0 where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.zeros(len(numerators)), where=denominators != 0)
