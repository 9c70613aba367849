"""
Trends -> which measures have become worse, and since when.

A measure has become worse if its last value is worse than the best earlier one of its series by more than chance, or
fails a limit that the best one passed. Runs before an accepted shift do not count. Nothing is judged here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from sae_checks.comparing.history.series import Line, Point
from sae_checks.comparing.history.trend import Trend
from sae_checks.judging.budget import ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A measure of one SAE or stack that has become worse."""

    line: Line
    best: Point
    since: Point
    """the first run from which on all values are worse than *best*."""
    last: Point


def moves(trends: Sequence[Trend]) -> tuple[Move, ...]:
    """What has become worse in *trends*, by the time of *since*."""
    n_values = sum(len(part.series.points) for trend in trends for part in trend.parts)
    # WHY: all values together give a false alarm with a probability of about ALPHA; intervals are of 95 %
    widening = float(ndtri(ALPHA / n_values) / ndtri(ALPHA / 2)) if n_values else 1.0
    found = [move for trend in trends for move in _of(trend, widening)]
    return tuple(sorted(found, key=lambda move: move.since.started))


def _of(trend: Trend, widening: float) -> Iterator[Move]:
    part = trend.parts[-1]
    points = part.series.points[max((at for at, _ in part.accepted), default=0) :]
    last = points[-1]
    if last.limit is None:
        return
    for side in last.limit.sides:
        sign = 1 if side.kind == "max" else -1
        middle = (last.limit.value + (last.limit.floor or 0.0)) / 2
        if last.limit.floor is not None and sign * (last.value - middle) < 0:
            continue  # the value is nearer to the other end of the range
        best = min(range(len(points)), key=lambda i: sign * points[i].value)
        is_worse = [_is_worse(point, points[best], sign, widening) for point in points[best + 1 :]]
        if is_worse and is_worse[-1]:
            n_worse = next((i for i, worse in enumerate(reversed(is_worse)) if not worse), len(is_worse))
            yield Move(line=trend.line, best=points[best], since=points[-n_worse], last=last)


def _is_worse(later: Point, best: Point, sign: int, widening: float) -> bool:
    """Whether *later* is worse than *best*; *sign*: 1 if larger values are worse, else -1."""
    if later.outcome == "failed" and best.outcome == "passed":
        return True
    toward_good, toward_bad = (later.low, best.high) if sign > 0 else (later.high, best.low)
    if toward_good is None or toward_bad is None:
        return False
    # SOURCE: Zou and Donner, as in compare.subtract
    chance = widening * math.hypot(later.value - toward_good, best.value - toward_bad)
    return sign * (later.value - best.value) > chance
