"""Lines of a history -> trends, with notes on new series and accepted shifts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sae_checks.comparing.history.series import Line, Point, Series
from sae_checks.errors import shown
from sae_checks.judging.accepted_shifts import AcceptedShift

_N_NAMED_MOST = 3  # measures or SAEs of a note; more are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note on a line."""

    kind: Literal["note", "accepted"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedSeries:
    """One series of a line, with its accepted shifts."""

    series: Series
    accepted: tuple[tuple[int, AcceptedShift], ...]
    """(index of the first run at the new level, shift)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One line with its notes."""

    line: Line
    parts: tuple[AnnotatedSeries, ...]
    """one per series, by time."""
    notes: tuple[Note, ...]


def trends(lines: Sequence[Line], release: str, shifts: Sequence[AcceptedShift]) -> tuple[Trend, ...]:
    """The trends of *lines*, which are of *release*, with those of *shifts* that apply."""
    found = []
    for line in lines:
        of_line = [shift for shift in shifts if shift.applies(release, line.sae_id, line.measure)]
        parts = tuple(_annotated(series, of_line) for series in line.series)
        found.append(Trend(line=line, parts=parts, notes=tuple(_notes(parts))))
    return tuple(found)


def notes_by_text(found: Sequence[Trend]) -> Iterator[tuple[Note, str]]:
    """Every note of *found* once, with the measures and SAEs that it is on: `ce_increase, kl of 26 SAEs`."""
    places: dict[Note, list[Line]] = {}
    for each in found:
        for note in each.notes:
            places.setdefault(note, []).append(each.line)
    for note, lines in places.items():
        measures = tuple(dict.fromkeys(line.measure for line in lines))
        saes = tuple(dict.fromkeys(shown(line.sae_id) for line in lines))
        yield note, f"{listed(measures, 'measures')} of {listed(saes, 'SAEs')}"


def listed(names: Sequence[str], what: str) -> str:
    """*names*, or `26 SAEs` if they are many."""
    return ", ".join(names) if len(names) <= _N_NAMED_MOST else f"{len(names)} {what}"


def _annotated(series: Series, shifts: Sequence[AcceptedShift]) -> AnnotatedSeries:
    points = series.points
    first_since = ((next((i for i, p in enumerate(points) if p.started >= s.since), None), s) for s in shifts)
    # WHY `if at`: a shift before the first run or after the last one divides no runs
    accepted = sorted(((at, shift) for at, shift in first_since if at), key=lambda pair: pair[0])
    return AnnotatedSeries(series=series, accepted=tuple(accepted))


def _notes(parts: Sequence[AnnotatedSeries]) -> Iterator[Note]:
    for i, part in enumerate(parts):
        points = part.series.points
        if i:
            changes = "; ".join(shown(change) for change in parts[i - 1].series.key.changes(part.series.key))
            yield Note(kind="note", text=f"a new series starts with {_named(points[0])}: {changes}")
        for at, shift in part.accepted:
            text = f"from {_named(points[at])} on: {shown(shift.reason, n_most=300)} ({shown(shift.where)})"
            yield Note(kind="accepted", text=text)


def _named(point: Point) -> str:
    return f"{point.run_id} ({point.started:%Y-%m-%d})"
