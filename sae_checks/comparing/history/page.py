"""Trends -> one HTML page without scripts and without anything to fetch; every plot has a table, names are escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from sae_checks import __version__, errors
from sae_checks.comparing.history.series import Point
from sae_checks.comparing.history.trend import Trend
from sae_checks.errors import shown

WIDTH, HEIGHT = 720.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 12.0, 12.0, 26.0
_N_TICKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One run in a plot, in pixels."""

    x: float
    y: float
    low: float
    high: float
    kind: str
    """outcome of the check, with hyphens."""
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerticalLine:
    """A vertical line: a new series or an accepted shift."""

    x: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One line, drawn."""

    title: str
    summary: str
    """for screen readers."""
    paths: tuple[str, ...]
    marks: tuple[Marker, ...]
    vertical_lines: tuple[VerticalLine, ...]
    limits: tuple[float, ...]
    """y of the last run's limit."""
    ticks: tuple[tuple[float, str], ...]
    """(y, number)."""
    days: tuple[tuple[float, str], ...]
    """(x, date) of the first and the last run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The section of one line."""

    number: int
    trend: Trend
    plot: Plot
    rows: tuple[tuple[int, Point], ...]
    """(number of the series, run), by time."""


def html(trends: Sequence[Trend], release: str, url: str, n_unreadable: int) -> str:
    """The page of *trends* of *release*, from the history at *url*."""
    folder = resources.files("sae_checks.comparing.history")
    style = folder.joinpath("trend.css").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("trend.html").read_text("utf-8"))
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return template.render(
        style=style,
        style_hash=allowed,
        release=shown(release),
        url=shown(url, n_most=300),
        sections=[_section(i, trend) for i, trend in enumerate(trends, 1)],
        n_unreadable=n_unreadable,
        version=__version__,
        shown=shown,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
    )


def write(page: str, path: Path) -> None:
    """
    Write *page* to *path*.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as problem:
        raise errors.not_written(str(path), str(problem)) from None


def _section(number: int, trend: Trend) -> Section:
    rows = [(i, point) for i, part in enumerate(trend.parts, 1) for point in part.series.points]
    rows.sort(key=lambda row: (row[1].started, row[1].run_id))
    return Section(number=number, trend=trend, plot=_plot(trend, [point for _, point in rows]), rows=tuple(rows))


def _plot(trend: Trend, points: Sequence[Point]) -> Plot:
    column = {point.run_id: i for i, point in enumerate(points)}
    step = (WIDTH - LEFT - RIGHT) / len(points)
    last_limit = points[-1].limit
    limits = () if last_limit is None else tuple(side.value for side in last_limit.sides)
    scale = _Scale.of([*_heights(trend), *limits])

    def x(point: Point) -> float:
        return round(LEFT + step * (column[point.run_id] + 0.5), 1)

    name = f"{trend.line.measure} of {shown(trend.line.sae_id)}"
    days = [(x(p), f"{p.started:%Y-%m-%d}") for p in dict.fromkeys((points[0], points[-1]))]
    return Plot(
        title=name,
        summary=f"{len(points)} runs in {len(trend.parts)} series, {trend.line.unit}; the table below has every value",
        paths=tuple(_path([(x(p), scale.y(p.estimate.value)) for p in part.series.points]) for part in trend.parts),
        marks=tuple(_mark(p, x(p), scale) for part in trend.parts for p in part.series.points),
        vertical_lines=tuple(_vertical_lines(trend, {p: x(p) - step / 2 for p in points})),
        limits=tuple(scale.y(limit) for limit in limits),
        ticks=tuple((scale.y(value), f"{value:.4g}") for value in scale.ticks),
        days=tuple(days),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """The y axis: values to pixels."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low=low - room, high=high + room)

    @property
    def ticks(self) -> tuple[float, ...]:
        return tuple(self.low + (self.high - self.low) * (i + 0.5) / _N_TICKS for i in range(_N_TICKS))

    def y(self, value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low), 1)


def _heights(trend: Trend) -> Iterator[float]:
    for part in trend.parts:
        for point in part.series.points:
            yield from (point.estimate.low, point.estimate.high)


def _mark(point: Point, x: float, scale: _Scale) -> Marker:
    found = point.estimate
    title = (
        f"{point.started:%Y-%m-%d %H:%M} UTC: {found.value:.4g} [{found.low:.4g}, {found.high:.4g}], {point.outcome}"
    )
    return Marker(
        x=x,
        y=scale.y(found.value),
        low=scale.y(found.low),
        high=scale.y(found.high),
        kind=point.outcome.replace("_", "-"),
        title=title,
    )


def _vertical_lines(trend: Trend, place_of: dict[Point, float]) -> Iterator[VerticalLine]:
    for i, part in enumerate(trend.parts):
        points = part.series.points
        if i:
            yield VerticalLine(x=round(place_of[points[0]], 1), kind="series", title="a new series starts")
        for at, shift in part.accepted:
            yield VerticalLine(
                x=round(place_of[points[at]], 1), kind="accepted", title=f"accepted: {shown(shift.reason)}"
            )


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if i else 'M'}{x:g} {y:g}" for i, (x, y) in enumerate(places))
