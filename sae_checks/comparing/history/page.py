"""Trends -> one self-contained HTML page: no script, nothing fetched, a table under every plot, names escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from sae_checks import __version__, errors
from sae_checks.comparing.history.forecast import Interval
from sae_checks.comparing.history.series import Point
from sae_checks.comparing.history.trend import Part, Trend
from sae_checks.errors import shown

WIDTH, HEIGHT = 720.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 12.0, 12.0, 26.0
_N_TICKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One run in a plot, in pixels."""

    x: float
    y: float
    low: float
    high: float
    kind: str
    """how the check ended; 'outside' where a warning is due."""
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """A vertical line with what it means."""

    x: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Where the next run is expected, and the runs that say so."""

    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One line, drawn."""

    title: str
    summary: str
    """for those who do not see it."""
    paths: tuple[str, ...]
    marks: tuple[Mark, ...]
    uprights: tuple[Upright, ...]
    bands: tuple[Band, ...]
    limits: tuple[float, ...]
    """heights of the limit in force last."""
    ticks: tuple[tuple[float, str], ...]
    """height and number."""
    days: tuple[tuple[float, str], ...]
    """place and date of the first and the last run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One line of the page."""

    number: int
    trend: Trend
    plot: Plot
    rows: tuple[tuple[int, Point], ...]
    """number of the series, and the run; by time."""


def html(trends: Sequence[Trend], release: str, place: str, n_unreadable: int) -> str:
    """The page of *trends*, of *release* as *place* keeps it."""
    folder = resources.files("sae_checks.comparing.history")
    style = folder.joinpath("trend.css").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("trend.html").read_text("utf-8"))
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    n_warnings = sum(note.kind == "warning" for trend in trends for note in trend.notes)
    return template.render(
        style=style,
        style_hash=allowed,
        release=shown(release),
        place=shown(place, n_most=300),
        sections=[_section(i, trend) for i, trend in enumerate(trends, 1)],
        n_warnings=n_warnings,
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
    *page* to *path*.

    Raises:
        UsageError: it cannot be written.
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
    step = (WIDTH - LEFT - RIGHT) / (len(points) + 1)  # one more, where the next run will be
    last_limit = points[-1].limit
    limits = () if last_limit is None else tuple(side.value for side in last_limit.sides)
    scale = _Scale.of([*_heights(trend), *limits])

    def x(point: Point) -> float:
        return round(LEFT + step * (column[point.run_id] + 0.5), 1)

    bands = []
    for part in trend.parts:
        if (expected := _expected(part)) is not None:
            start = x(part.series.points[-part.n_at_rest])
            top, base = scale.y(expected.high), scale.y(expected.low)
            end = x(part.series.points[-1]) + step
            bands.append(Band(x=start, width=round(end - start, 1), y=top, height=round(base - top, 1)))
    name = f"{trend.line.measure} of {shown(trend.line.sae_id)}"
    days = [(x(p), f"{p.started:%Y-%m-%d}") for p in dict.fromkeys((points[0], points[-1]))]
    return Plot(
        title=name,
        summary=f"{len(points)} runs in {len(trend.parts)} series, {trend.line.unit}; the table below has every value",
        paths=tuple(_path([(x(p), scale.y(p.estimate.value)) for p in part.series.points]) for part in trend.parts),
        marks=tuple(_mark(part, i, x(p), scale) for part in trend.parts for i, p in enumerate(part.series.points)),
        uprights=tuple(_uprights(trend, {p: x(p) - step / 2 for p in points})),
        bands=tuple(bands),
        limits=tuple(scale.y(limit) for limit in limits),
        ticks=tuple((scale.y(value), f"{value:.4g}") for value in scale.ticks),
        days=tuple(days),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Values to heights."""

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
        if (expected := _expected(part)) is not None:
            yield from (expected.low, expected.high)


def _expected(part: Part) -> Interval | None:
    """Where the next run is expected; where the last is not in its place, the place that it should have had."""
    return part.before_last if part.is_outside else part.next


def _mark(part: Part, i: int, x: float, scale: _Scale) -> Mark:
    point = part.series.points[i]
    found = point.estimate
    is_outside = part.is_outside and i == len(part.series.points) - 1
    title = (
        f"{point.started:%Y-%m-%d %H:%M} UTC: {found.value:.4g} [{found.low:.4g}, {found.high:.4g}], {point.outcome}"
    )
    return Mark(
        x=x,
        y=scale.y(found.value),
        low=scale.y(found.low),
        high=scale.y(found.high),
        kind="outside" if is_outside else point.outcome.replace("_", "-"),
        title=title + (", outside of what was expected" if is_outside else ""),
    )


def _uprights(trend: Trend, place_of: dict[Point, float]) -> Iterator[Upright]:
    for i, part in enumerate(trend.parts):
        points = part.series.points
        if i:
            yield Upright(x=round(place_of[points[0]], 1), kind="series", title="a new series starts")
        for at, shift in part.accepted:
            yield Upright(x=round(place_of[points[at]], 1), kind="accepted", title=f"accepted: {shown(shift.reason)}")
        for change in part.unexplained:
            title = f"the level changes: {change.before:.4g} -> {change.after:.4g}"
            yield Upright(x=round(place_of[points[change.at]], 1), kind="change", title=title)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if i else 'M'}{x:g} {y:g}" for i, (x, y) in enumerate(places))
