"""Lines of a history -> what there is to say of each: where it is expected, what has changed, what was accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sae_checks.comparing.history import forecast
from sae_checks.comparing.history.forecast import Change, Interval
from sae_checks.comparing.history.series import Line, Point, Series
from sae_checks.errors import shown
from sae_checks.judging.accepted_shifts import AcceptedShift


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing to say of a line."""

    kind: Literal["warning", "note", "accepted"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One series of a line, as far as the runs before and after its last accepted shift go."""

    series: Series
    accepted: tuple[tuple[int, AcceptedShift], ...]
    """index of the first run at the new level, and why it is right."""
    before_last: Interval | None
    """where the last run was expected, by those before it; None: too few."""
    next: Interval | None
    """where the next run is expected."""
    changes: tuple[Change, ...]

    @property
    def unexplained(self) -> tuple[Change, ...]:
        """Changes of level that nobody has accepted."""
        starts = {at for at, _ in self.accepted}
        # a cut is where it fits best, which may be a run beside the one at which it happened
        return tuple(c for c in self.changes if not starts & {c.at - 1, c.at, c.at + 1})

    @property
    def n_at_rest(self) -> int:
        """Runs since the last accepted shift: those that foretell."""
        return len(self.series.points) - max((at for at, _ in self.accepted), default=0)

    @property
    def is_outside(self) -> bool:
        """Whether the last run is not where it was expected."""
        last = self.series.points[-1].estimate.value
        return self.before_last is not None and not self.before_last.low <= last <= self.before_last.high

    @property
    def expected(self) -> str:
        if self.next is None:
            return f"needs {forecast.N_LEAST} runs, has {self.n_at_rest}"
        low, high = (f"{end:.4g}" for end in (self.next.low, self.next.high))
        middle = (self.next.low + self.next.high) / 2
        return f"[{low}, {high}]" if self.next.high - self.next.low > forecast.NOTHING else f"{middle:.4g}"

    @property
    def status(self) -> str:
        if self.is_outside:
            return "WARNING"
        return "as expected" if self.before_last is not None else "too few runs to say"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One line with all there is to say of it."""

    line: Line
    parts: tuple[Part, ...]
    """one per series, by time."""
    notes: tuple[Note, ...]


def trends(lines: Sequence[Line], release: str, shifts: Sequence[AcceptedShift]) -> tuple[Trend, ...]:
    """What there is to say of each of *lines*, which are of *release*."""
    found = []
    for line in lines:
        of_line = [shift for shift in shifts if shift.applies(release, line.sae_id, line.measure)]
        parts = tuple(_part(series, of_line) for series in line.series)
        found.append(Trend(line=line, parts=parts, notes=tuple(_notes(line, parts))))
    return tuple(found)


def _part(series: Series, shifts: Sequence[AcceptedShift]) -> Part:
    points = series.points
    first_since = ((next((i for i, p in enumerate(points) if p.started >= s.since), None), s) for s in shifts)
    # a shift before all runs, or after all of them, divides none
    accepted = sorted(((at, shift) for at, shift in first_since if at), key=lambda pair: pair[0])
    estimates = [point.estimate for point in points]
    at_rest = estimates[accepted[-1][0] :] if accepted else estimates
    return Part(
        series=series,
        accepted=tuple(accepted),
        before_last=forecast.foretell(at_rest[:-1]),
        next=forecast.foretell(at_rest),
        changes=forecast.changes(estimates),
    )


def _notes(line: Line, parts: Sequence[Part]) -> Iterator[Note]:
    for i, part in enumerate(parts):
        points, last = part.series.points, part.series.points[-1]
        if i:
            changes = "; ".join(shown(change) for change in parts[i - 1].series.key.changes(part.series.key))
            yield Note(kind="note", text=f"a new series starts with {_named(points[0])}: {changes}")
        if part.is_outside:
            assert part.before_last is not None
            expected = f"[{part.before_last.low:.4g}, {part.before_last.high:.4g}] after {part.before_last.n} runs"
            text = f"{last.estimate.value:.4g} {line.unit} in {_named(last)}, expected {expected}"
            yield Note(kind="warning", text=text)
        for at, shift in part.accepted:
            text = f"from {_named(points[at])} on: {shown(shift.reason, n_most=300)} ({shown(shift.where)})"
            yield Note(kind="accepted", text=text)
        for change in part.unexplained:
            levels = f"{change.before:.4g} -> {change.after:.4g} {line.unit}"
            yield Note(kind="note", text=f"the level changes with {_named(points[change.at])}: {levels}")


def _named(point: Point) -> str:
    return f"{point.run_id} ({point.started:%Y-%m-%d})"
