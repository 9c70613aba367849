"""
What the runs so far say of the next one, and where their level has changed. Warnings and notes: no verdict rests on it.

Both take the runs of one key for independent draws about one level. Runs of the same weights on the same tokens repeat
each other to the last digit or nearly, so that their spread says nothing of what is worth knowing: a tenth of the
standard error behind the values, from sampling sequences, is the least that is taken for spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import stdtr, stdtrit

from sae_checks.judging.estimates import Estimate, t_quantile

ALPHA = 0.01
"""Chance that the next run of a series at rest is outside of its interval; and, of each segment, that it is cut."""
N_LEAST = 8
"""Runs below which nothing is foretold."""
N_SEGMENT = 3
"""Runs below which there is no level: one odd run is none."""
_SHARE_OF_ERROR = 0.1
_LEAST_RELATIVE = 1e-6
"""Of the values, for what is exact: float32's rounding."""
_LEAST = 1e-12
"""Of anything: what is always zero, such as copies, has no scale of its own."""
NOTHING = 1e-9
"""An interval no wider is shown as one number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where the next value is expected."""

    low: float
    high: float
    n: int
    """runs behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A run from which on the level is another."""

    at: int
    """index of the first run at the new level."""
    before: float
    after: float
    """mean levels of the segments beside it."""


def foretell(estimates: Sequence[Estimate]) -> Interval | None:
    """
    The interval in which the next value is expected with probability 1 - ALPHA; None below N_LEAST runs.

    Student's t for a new normal value: mean +- t s sqrt(1 + 1/n).
    """
    n = len(estimates)
    if n < N_LEAST:
        return None
    values = np.array([e.value for e in estimates], dtype=np.float64)
    spread = max(float(values.std(ddof=1)), least_spread(estimates))
    half = float(stdtrit(n - 1, 1 - ALPHA / 2)) * spread * math.sqrt(1 + 1 / n)
    mean = float(values.mean())
    return Interval(low=mean - half, high=mean + half, n=n)


def changes(estimates: Sequence[Estimate]) -> tuple[Change, ...]:
    """
    Where the level changes: the best cut in two, if its t statistic is beyond chance for all cuts together, and again.

    A segment of independent normal values about one level is cut with a probability of ALPHA at most (Bonferroni over
    its cuts). A level that comes back at once can hide from cuts one at a time.
    """
    values = [e.value for e in estimates]
    cuts = sorted(_cuts(np.array(values, dtype=np.float64), 0, least_spread(estimates)))
    ends = [0, *cuts, len(values)]
    levels = [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(ends) if b > a]
    return tuple(Change(at=cut, before=levels[i], after=levels[i + 1]) for i, cut in enumerate(cuts))


def least_spread(estimates: Sequence[Estimate]) -> float:
    """What is taken for spread at least, in the measure's unit."""
    if not estimates:
        return 0.0
    errors = [(e.high - e.low) / 2 / t_quantile(max(2, e.n)) for e in estimates]
    largest = max(abs(e.value) for e in estimates)
    return max(_SHARE_OF_ERROR * float(np.median(errors)), _LEAST_RELATIVE * largest, _LEAST)


def _cuts(values: np.ndarray[tuple[int], np.dtype[np.float64]], start: int, floor: float) -> list[int]:
    n = len(values)
    places = range(N_SEGMENT, n - N_SEGMENT + 1)
    if not places:
        return []
    best, found = 0.0, 0
    for at in places:
        left, right = values[:at], values[at:]
        within = float(((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum())
        spread = max(math.sqrt(within / (n - 2)), floor)
        t = abs(float(left.mean() - right.mean())) / (spread * math.sqrt(1 / at + 1 / (n - at)))
        best, found = (t, at) if t > best else (best, found)
    if found == 0 or 2 * float(stdtr(n - 2, -best)) * len(places) >= ALPHA:
        return []
    later = _cuts(values[found:], start + found, floor)
    return [*_cuts(values[:found], start, floor), start + found, *later]
