"""Trends -> one HTML page without scripts and without anything to fetch. Names are escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from sae_checks import __version__, errors
from sae_checks.comparing.history import drawing, moves, series, trend
from sae_checks.comparing.history.drawing import Plot, Sparkline
from sae_checks.comparing.history.moves import Move
from sae_checks.comparing.history.series import Point
from sae_checks.comparing.history.trend import Trend
from sae_checks.errors import shown

N_OPEN = 1
"""Up to so many SAEs, their plots are unfolded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measure of one SAE."""

    anchor: str
    """HTML id of its plot."""
    trend: Trend
    last: Point
    is_current: bool
    """whether the newest run has a value."""
    move: Move | None
    """None: it has not become worse."""
    spark: Sparkline
    plot: Plot


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One SAE or stack."""

    anchor: str
    name: str
    cells: tuple[Cell | None, ...]
    """one per column of the page; None: not measured in any run."""
    values: tuple[tuple[int, tuple[Point | None, ...]], ...]
    """(number of the run, its values in the order of the measured cells)."""

    @property
    def measured(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell is not None)

    @property
    def moved(self) -> tuple[Move, ...]:
        """What has become worse, the earliest first."""
        found = [cell.move for cell in self.measured if cell.move is not None]
        return tuple(sorted(found, key=lambda move: move.since.started))


def html(trends: Sequence[Trend], release: str, url: str, n_unreadable: int) -> str:
    """The page of *trends* of *release*, from the history at *url*."""
    folder = resources.files("sae_checks.comparing.history")
    style = folder.joinpath("trend.css").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("trend.html").read_text("utf-8"))
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    points = {p.run_id: p for each in trends for part in each.parts for p in part.series.points}
    runs = sorted(points.values(), key=lambda point: (point.started, point.run_id))
    columns = tuple(dict.fromkeys((each.line.check, each.line.measure) for each in trends))
    rows = tuple(_rows(trends, columns, runs))
    return template.render(
        style=style,
        style_hash=allowed,
        release=shown(release),
        url=shown(url, n_most=300),
        columns=columns,
        rows=rows,
        moved=sorted((row for row in rows if row.moved), key=lambda row: row.moved[0].since.started),
        notes=tuple(trend.notes_by_text(trends)),
        runs=runs,
        is_open=len(rows) <= N_OPEN,
        n_unreadable=n_unreadable,
        version=__version__,
        shown=shown,
        drawing=drawing,
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


def _rows(trends: Sequence[Trend], columns: Sequence[tuple[str, str]], runs: Sequence[Point]) -> Iterator[Row]:
    column = {run.run_id: i for i, run in enumerate(runs)}
    days = [f"{run.started:%Y-%m-%d}" for run in runs]
    moved = {(move.line.sae_id, move.line.check, move.line.measure): move for move in moves.moves(trends)}
    by_place = {(each.line.sae_id, each.line.check, each.line.measure): each for each in trends}
    ordered = sorted(trends, key=lambda each: series.place(each.line.sae_id, each.line.check))
    for i, sae_id in enumerate(dict.fromkeys(each.line.sae_id for each in ordered), 1):
        cells: list[Cell | None] = []
        for j, place in enumerate(columns, 1):
            found = by_place.get((sae_id, *place))
            if found is None:
                cells.append(None)
                continue
            last = max((part.series.points[-1] for part in found.parts), key=lambda point: column[point.run_id])
            cells.append(
                Cell(
                    anchor=f"p{i}-{j}",
                    trend=found,
                    last=last,
                    is_current=last.run_id == runs[-1].run_id,
                    move=moved.get((sae_id, *place)),
                    spark=drawing.sparkline(found, len(runs), column),
                    plot=drawing.plot(found, days, column),
                )
            )
        measured = [cell.trend for cell in cells if cell is not None]
        yield Row(anchor=f"s{i}", name=sae_id, cells=tuple(cells), values=tuple(_values(measured, column)))


def _values(trends: Sequence[Trend], column: Mapping[str, int]) -> Iterator[tuple[int, tuple[Point | None, ...]]]:
    by_run = [{p.run_id: p for part in each.parts for p in part.series.points} for each in trends]
    for run_id, number in sorted(column.items(), key=lambda pair: pair[1]):
        found = tuple(of_measure.get(run_id) for of_measure in by_run)
        if any(point is not None for point in found):
            yield number + 1, found
