"""Trends -> coordinates of plots and sparklines, in pixels. A column is a run, the same in all plots of a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sae_checks.comparing.history.series import Point
from sae_checks.comparing.history.trend import Trend
from sae_checks.errors import shown

WIDTH, HEIGHT = 380, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 22
SPARK_WIDTH, SPARK_HEIGHT = 44, 18
_SPARK_EDGE = 3
_N_DAYS_MOST = 3  # below a plot


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The y axis: values from *low* to *high*, to pixels from *bottom* up to *top*."""

    low: float
    high: float
    bottom: float
    top: float

    @classmethod
    def around(cls, values: Sequence[float], *, bottom: float, top: float) -> Scale:
        """The scale of *values*, with some room."""
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low=low - room, high=high + room, bottom=bottom, top=top)

    @property
    def ticks(self) -> tuple[float, ...]:
        """Three to eight round numbers: multiples of 1, 2 or 5 times a power of ten."""
        most = (self.high - self.low) / 3
        power = 10.0 ** math.floor(math.log10(most))
        step = next(power * digit for digit in (5, 2, 1) if power * digit <= most)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return tuple(i * step for i in range(first, last + 1))

    def y(self, value: float) -> int:
        inside = min(max(value, self.low), self.high)
        return round(self.bottom - (self.bottom - self.top) * (inside - self.low) / (self.high - self.low))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerticalLine:
    """A vertical line: a new series or an accepted shift."""

    x: int
    kind: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One line of a history, drawn."""

    path: str
    """the values, each series by itself."""
    whiskers: str
    marks: tuple[tuple[str, str], ...]
    """(outcome with hyphens, a path with a dot per run)."""
    vertical_lines: tuple[VerticalLine, ...]
    limits: tuple[int, ...]
    """y of the last run's limit."""
    ticks: tuple[tuple[int, str], ...]
    """(y, number)."""
    days: tuple[tuple[int, str, str], ...]
    """(x, text-anchor, date)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """One line of a history in a cell of the overview."""

    path: str
    limits: tuple[int, ...]
    last: tuple[int, int]
    """place of the last run's value."""


def plot(trend: Trend, days: Sequence[str], column: Mapping[str, int]) -> Plot:
    """
    Draw *trend*.

    Args:
        trend: it has at least one run.
        days: the date of each column.
        column: of each run id.
    """
    points = _points(trend)
    limits = _limits(points)
    scale = Scale.around(_heights(points, limits), bottom=HEIGHT - BOTTOM, top=TOP)
    step = (WIDTH - LEFT - RIGHT) / len(days)

    def x(point: Point) -> int:
        return round(LEFT + step * (column[point.run_id] + 0.5))

    outcomes = dict.fromkeys(point.outcome for point in points)
    return Plot(
        path=_path(trend, x, scale),
        whiskers="".join(f"M{x(p)} {scale.y(low)}V{scale.y(high)}" for p, low, high in _intervals(points)),
        marks=tuple(
            (
                outcome.replace("_", "-"),
                "".join(f"M{x(p)} {scale.y(p.value)}h0" for p in points if p.outcome == outcome),
            )
            for outcome in outcomes
        ),
        vertical_lines=tuple(_vertical_lines(trend, lambda point: round(x(point) - step / 2))),
        limits=tuple(map(scale.y, limits)),
        ticks=tuple((scale.y(tick), f"{tick:.6g}") for tick in scale.ticks),
        days=tuple(_days(days, step)),
    )


def sparkline(trend: Trend, n_columns: int, column: Mapping[str, int]) -> Sparkline:
    """Draw *trend* small, with its limits on the scale."""
    points = _points(trend)
    limits = _limits(points)
    values = [point.value for point in points]
    scale = Scale.around([*values, *limits], bottom=SPARK_HEIGHT - _SPARK_EDGE, top=_SPARK_EDGE)
    step = (SPARK_WIDTH - 2 * _SPARK_EDGE) / max(1, n_columns - 1)

    def x(point: Point) -> int:
        return round(_SPARK_EDGE + step * column[point.run_id])

    last = max(points, key=lambda point: column[point.run_id])
    return Sparkline(
        path=_path(trend, x, scale), limits=tuple(map(scale.y, limits)), last=(x(last), scale.y(last.value))
    )


def _points(trend: Trend) -> list[Point]:
    found = [point for part in trend.parts for point in part.series.points]
    return sorted(found, key=lambda point: (point.started, point.run_id))


def _limits(points: Sequence[Point]) -> tuple[float, ...]:
    limit = points[-1].limit
    return () if limit is None else tuple(side.value for side in limit.sides)


def _intervals(points: Sequence[Point]) -> Iterator[tuple[Point, float, float]]:
    for p in points:
        if p.low is not None and p.high is not None:
            yield p, p.low, p.high


def _heights(points: Sequence[Point], limits: Sequence[float]) -> list[float]:
    """Everything that is on the scale: an interval only as far as it does not flatten all else."""
    core = [*(point.value for point in points), *limits]
    room = (max(core) - min(core)) / 2 or abs(core[0]) / 2
    ends = (end for _, *interval in _intervals(points) for end in interval)
    return [*core, *(min(max(end, min(core) - room), max(core) + room) for end in ends)]


def _path(trend: Trend, x: Callable[[Point], int], scale: Scale) -> str:
    pieces = (
        f"{'L' if i else 'M'}{x(point)} {scale.y(point.value)}"
        for part in trend.parts
        for i, point in enumerate(part.series.points)
    )
    return "".join(pieces)


def _vertical_lines(trend: Trend, before: Callable[[Point], int]) -> Iterator[VerticalLine]:
    for i, part in enumerate(trend.parts):
        points = part.series.points
        if i:
            yield VerticalLine(x=before(points[0]), kind="series", title="a new series starts")
        for at, shift in part.accepted:
            yield VerticalLine(x=before(points[at]), kind="accepted", title=f"accepted: {shown(shift.reason)}")


def _days(days: Sequence[str], step: float) -> Iterator[tuple[int, str, str]]:
    """The first day, the last, and one between them."""
    last = len(days) - 1
    for i in sorted({0, last // 2, last}):
        anchor = "middle" if last < _N_DAYS_MOST else "start" if i == 0 else "end" if i == last else "middle"
        yield round(LEFT + step * (i + 0.5)), anchor, days[i]
