"""Plots as data, and their scales; `svg` draws them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_FAR = 1e300
"""Nothing is drawn further out. WHY: the difference of two larger numbers may be infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLine:
    """A line across a plot: a limit, or the end of the training context."""

    along: Literal["x", "y"]
    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePlot:
    """One measure with its interval over a logarithmic x axis."""

    name: str
    """HTML id, unique in a report."""
    title: str
    description: str
    """for screen readers."""
    x_title: str
    y_title: str
    x: tuple[float, ...]
    """above 0, rising."""
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    marks: tuple[ReferenceLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One row of a DotPlot: a value, its interval and its limits."""

    label: str
    value: float
    low: float
    high: float
    outcome: str
    limits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DotPlot:
    """Values with intervals, one row each."""

    name: str
    title: str
    description: str
    x_title: str
    dots: tuple[Dot, ...]
    is_joined: bool = False
    """draws a line through the rows, which are steps of one process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPlot:
    """Numbers in rows and columns, shaded by size."""

    name: str
    title: str
    description: str
    corner: str
    """heading over the rows' names: what rows and columns are."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    """by row; None: an empty cell."""
    limits: tuple[float | None, ...]
    """per row, the upper limit of its last cell; None: no limit."""

    def level(self, value: float, n_levels: int) -> int:
        """The shade of *value*, from 0 (zero and below) to *n_levels* - 1 (the largest cell)."""
        most = max((cell for row in self.cells for cell in row if cell is not None), default=0.0)
        if value <= 0 or most <= 0:
            return 0
        return min(n_levels - 1, int(value / most * n_levels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One SAE of a ScatterPlot."""

    label: str
    x: float
    y: float
    group: str
    """what its shape says."""
    layer: int | None
    """what its colour says; None: not known."""
    is_red: bool
    """whether *y* is beyond its limit."""
    limits: tuple[float, ...] = ()
    """of *y*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterPlot:
    """One measure against another, a point per SAE."""

    name: str
    title: str
    description: str
    x_title: str
    y_title: str
    points: tuple[Point, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Every group once."""
        return tuple(dict.fromkeys(point.group for point in self.points))

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer once, the first first."""
        return tuple(sorted({point.layer for point in self.points if point.layer is not None}))

    @property
    def common_limits(self) -> tuple[float, ...]:
        """The limits, if they are those of all points."""
        found = {point.limits for point in self.points}
        return next(iter(found)) if len(found) == 1 else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis from *low* to *high*."""

    low: float
    high: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The place of *value* along the axis, 0 to 1; values off the axis are put at its end."""
        low, high, here = (self._transformed(x) for x in (self.low, self.high, min(max(value, self.low), self.high)))
        return (here - low) / (high - low)

    def ticks(self) -> tuple[float, ...]:
        """Three to eight round numbers on the axis."""
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
        """Ticks of a logarithmic axis: powers of 2 if it begins at 1 or above (contexts), else powers of 10."""
        if self.low >= 1 and self.high <= 2**40:
            octaves = range(math.ceil(math.log2(self.low)), math.floor(math.log2(self.high)) + 1)
            return tuple(2.0**k for k in octaves[:: -(-len(octaves) // 9) or 1])
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        of_decade = (1.0, 2.0, 5.0) if len(decades) <= 3 else (1.0,)
        found = [digit * 10.0**k for k in decades[:: -(-len(decades) // 9)] for digit in of_decade]
        return tuple(tick for tick in found if self.low <= tick <= self.high)

    def _transformed(self, value: float) -> float:
        return math.log2(value) if self.is_log else value


def linear(values: Iterable[float]) -> Scale:
    """A linear scale with some room around *values*."""
    found = [clamped(value) for value in values] or [0.0]
    low, high = min(found), max(found)
    if low == high == 0:
        return Scale(low=0.0, high=1.0)
    room = (high - low) * 0.04
    if high - low <= max(abs(low), abs(high), 1e-200) * 1e-9:
        room = max(abs(high) * 0.1, 1e-3)
    # WHY: if all values lie on one side of zero, an end at zero stays there, so bars begin at the axis
    return Scale(low=0.0 if low == 0 else low - room, high=0.0 if high == 0 else high + room)


def logarithmic(values: Sequence[float]) -> Scale:
    """A logarithmic scale around *values*, all above 0."""
    found = [min(max(value, 1e-300), _FAR) for value in values] or [1.0]
    low, high = min(found), max(found)
    return Scale(low=low, high=max(high, low * 2), is_log=True)


def clamped(value: float) -> float:
    """*value*, cut to what can be drawn."""
    return min(max(value, -_FAR), _FAR)


def scatter_scale(values: Sequence[float], limits: Sequence[float] = (), *, is_whole: bool = False) -> Scale:
    """
    The scale of *values* and *limits*: logarithmic over a factor of 30, else linear without the far outliers.

    With *is_whole* outliers are on it, too.
    """
    if _is_far_apart(values, limits):
        return logarithmic([x * f for x in (*values, *limits) for f in (0.8, 1.25)])
    low, high = (-math.inf, math.inf) if is_whole else _fences(values)
    return linear([*limits, *(x for x in map(clamped, values) if low <= x <= high)])


def _is_far_apart(values: Sequence[float], limits: Sequence[float]) -> bool:
    return min([*values, *limits], default=0) > 0 and max(values) / 30 >= min(values)


def _fences(values: Sequence[float]) -> tuple[float, float]:
    """
    The range beyond which a value is cut off: Tukey's outer fences, three interquartile ranges from the quartiles.

    Infinite for fewer than four values. Source: Tukey, Exploratory Data Analysis (1977), section 2E.
    """
    found = sorted(map(clamped, values))
    if len(found) < 4:
        return -math.inf, math.inf
    lower, _, upper = statistics.quantiles(found, n=4, method="inclusive")
    room = 3 * (upper - lower)
    return (lower - room, upper + room) if room else (-math.inf, math.inf)


def dot_scale(dots: Sequence[Dot]) -> Scale:
    """The scale of a DotPlot: as `scatter_scale`, with the intervals; zero is on it if near."""
    values = [dot.value for dot in dots]
    limits = [limit for dot in dots for limit in dot.limits]
    if _is_far_apart(values, limits):
        ends = [end for dot in dots for end in (dot.low, dot.high) if end > 0]
        return logarithmic(
            [x * f for x in [*values, *limits, *(e for e in ends if e >= min(values) / 4)] for f in (0.8, 1.25)]
        )
    low, high = _fences(values)
    within = [dot for dot in dots if low <= dot.value <= high]
    ends = [clamped(min(max(end, low), high)) for dot in within for end in (dot.value, dot.low, dot.high)]
    found = [*map(clamped, limits), *ends] or [0.0]
    has_zero_near = max(found) - min(found) > max(map(abs, found)) / 2
    return linear([*found, *([0.0] if has_zero_near else [])])


def line_scales(lines: LinePlot) -> tuple[Scale, Scale]:
    """
    The scales of *lines*' x and y.

    All values and limits are on the y scale. The band is cut at half their range above and below: an interval from
    two sequences would flatten everything else.
    """
    marked = [mark.at for mark in lines.marks if mark.along == "y"]
    core = [clamped(y) for y in (*lines.value, *marked)] or [0.0]
    least, most = min(core), max(core)
    room = (most - least) / 2 or abs(most) / 2
    ends = [min(max(clamped(y), least - room), most + room) for y in (*lines.low, *lines.high)]
    xs = [*lines.x, *(mark.at for mark in lines.marks if mark.along == "x")]
    return logarithmic(xs), linear([*core, *ends])
