"""What is drawn, before anything draws it: lines, values with intervals, matrices; no colours, no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_FAR = 1e300
"""Beyond it the difference of two numbers may be infinite; nothing is drawn further out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A number that the reader compares with: a limit, or the end of the training context."""

    along: Literal["x", "y"]
    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """One measure along an axis that grows by octaves, with its band."""

    name: str
    """of its file; unique in a report."""
    title: str
    description: str
    """for those who do not see it."""
    x_title: str
    y_title: str
    x: tuple[float, ...]
    """above zero, rising."""
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One value with its interval, and the limits that it is held against."""

    label: str
    value: float
    low: float
    high: float
    outcome: str
    limits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots:
    """Values with intervals, one row each."""

    name: str
    title: str
    description: str
    x_title: str
    dots: tuple[Dot, ...]
    is_joined: bool = False
    """the rows follow from each other: a line leads through them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Numbers in rows and columns, shaded by size."""

    name: str
    title: str
    description: str
    corner: str
    """what rows and columns are."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    """by row; None: there is no such number."""
    limits: tuple[float | None, ...]
    """per row, the most that its last number may be; None: no limit."""

    def level(self, value: float, n_levels: int) -> int:
        """How dark *value* is shown, 0 to *n_levels* - 1, zero and below being 0 and the largest being the most."""
        most = max((cell for row in self.cells for cell in row if cell is not None), default=0.0)
        if value <= 0 or most <= 0:
            return 0
        return min(n_levels - 1, int(value / most * n_levels))


Plot = Lines | Dots | Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Numbers on an axis to 0..1 along it."""

    low: float
    high: float
    is_log: bool = False
    """by octaves: doublings are equally far apart."""

    def at(self, value: float) -> float:
        """Where *value* stands; what is off the axis at its end."""
        low, high, here = (self._moved(x) for x in (self.low, self.high, min(max(value, self.low), self.high)))
        return (here - low) / (high - low)

    def ticks(self) -> tuple[float, ...]:
        """Three to eight round numbers on it."""
        if self.is_log:
            return self._powers()
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        for divided in (1, 2, 5, 10):
            if (self.high - self.low) / (step / divided) >= 3:
                step /= divided
                break
        first = math.ceil(self.low / step)
        n = math.floor((self.high - first * step) / step) + 1
        return tuple(tick for i in range(min(n, 12)) if self.low <= (tick := (first + i) * step) <= self.high)

    def _powers(self) -> tuple[float, ...]:
        """Of two from 1 on, where contexts are counted; else of ten, on a short axis times 1, 2 and 5."""
        if self.low >= 1 and self.high <= 2**40:
            octaves = range(math.ceil(math.log2(self.low)), math.floor(math.log2(self.high)) + 1)
            return tuple(2.0**k for k in octaves[:: -(-len(octaves) // 9) or 1])
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        of_decade = (1.0, 2.0, 5.0) if len(decades) <= 3 else (1.0,)
        found = [digit * 10.0**k for k in decades[:: -(-len(decades) // 9)] for digit in of_decade]
        return tuple(tick for tick in found if self.low <= tick <= self.high)

    def _moved(self, value: float) -> float:
        return math.log2(value) if self.is_log else value


def linear(values: Iterable[float]) -> Scale:
    """A scale on which all of *values* can be told apart from its ends."""
    found = [bounded(value) for value in values] or [0.0]
    low, high = min(found), max(found)
    if low == high == 0:
        return Scale(low=0.0, high=1.0)
    room = (high - low) * 0.04
    if high - low <= max(abs(low), abs(high), 1e-200) * 1e-9:
        room = max(abs(high) * 0.1, 1e-3)
    # where everything is on one side of zero, zero itself is an end and not somewhere inside
    return Scale(low=0.0 if low == 0 else low - room, high=0.0 if high == 0 else high + room)


def logarithmic(values: Sequence[float]) -> Scale:
    """A scale by octaves around *values*, all above zero."""
    found = [min(max(value, 1e-300), _FAR) for value in values] or [1.0]
    low, high = min(found), max(found)
    return Scale(low=low, high=max(high, low * 2), is_log=True)


def bounded(value: float) -> float:
    """*value*, or the furthest that can be drawn."""
    return min(max(value, -_FAR), _FAR)


def of_dots(dots: Sequence[Dot]) -> Scale:
    """By octaves where all values are above zero and thirty times apart; else linear, from zero unless that is far."""
    values = [dot.value for dot in dots]
    limits = [limit for dot in dots for limit in dot.limits]
    if min([*values, *limits], default=0) > 0 and max(values) / 30 >= min(values):
        ends = [end for dot in dots for end in (dot.low, dot.high) if end > 0]
        return logarithmic(
            [x * f for x in [*values, *limits, *(e for e in ends if e >= min(values) / 4)] for f in (0.8, 1.25)]
        )
    found = [bounded(x) for x in (*limits, *(end for dot in dots for end in (dot.value, dot.low, dot.high)))] or [0.0]
    has_zero_near = max(found) - min(found) > max(map(abs, found)) / 2
    return linear([*found, *([0.0] if has_zero_near else [])])


def of_lines(lines: Lines) -> tuple[Scale, Scale]:
    """
    Those of *lines*' x and y.

    Every value and every limit is on it, and of a band as much as half the height of that above and below: an
    interval from two sequences would flatten all else.
    """
    marked = [mark.at for mark in lines.marks if mark.along == "y"]
    core = [bounded(y) for y in (*lines.value, *marked)] or [0.0]
    least, most = min(core), max(core)
    room = (most - least) / 2 or abs(most) / 2
    ends = [min(max(bounded(y), least - room), most + room) for y in (*lines.low, *lines.high)]
    xs = [*lines.x, *(mark.at for mark in lines.marks if mark.along == "x")]
    return logarithmic(xs), linear([*core, *ends])
