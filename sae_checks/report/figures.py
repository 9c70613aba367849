"""A record's numbers -> what is drawn of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sae_checks import checks
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.thresholds import Limit
from sae_checks.record.record import Record, Result
from sae_checks.report import wording
from sae_checks.report.plots import Dot, Dots, Lines, Mark, Matrix

_PER_OCTAVE = 4
SMOOTHING = (
    f"Lines and bands are means over neighbouring positions, {_PER_OCTAVE} windows to each doubling of the context; a "
    "band is the mean of the 95 % intervals of its positions, each of which holds for its position alone. A limit is "
    "on the mean over all of them, not on each. The record has every position, not smoothed."
)
_CURVES = {
    "ce_increase": "Cross-entropy increase",
    "kl": "KL divergence",
    "l0": "Active latents",
    "explained_variance": "Explained variance",
}
_PROFILES = (checks.CE_LOSS, checks.LAMBADA, checks.CBT, checks.LONG_CONTEXT, checks.SPARSITY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A curve over neighbouring positions."""

    first: int
    last: int
    """positions; the first token has position 0."""
    value: float
    low: float
    high: float
    n: int
    """the fewest sequences that one of its positions has."""


def windows(curve: Curve, n_training: int | None) -> tuple[Window, ...]:
    """
    Means of *curve* over positions that lie within a quarter of an octave of each other; see SMOOTHING.

    None reaches across the end of the training context: what happens there is what the curve is drawn for.
    """
    of_window: dict[tuple[bool, int], list[int]] = {}
    for i, position in enumerate(curve.position):
        is_beyond = n_training is not None and position >= n_training
        window = math.ceil(_PER_OCTAVE * math.log2(position + 1) - 1e-9)
        of_window.setdefault((is_beyond, window), []).append(i)
    return tuple(
        Window(
            first=min(curve.position[i] for i in here),
            last=max(curve.position[i] for i in here),
            value=math.fsum(curve.value[i] / len(here) for i in here),
            low=math.fsum(curve.low[i] / len(here) for i in here),
            high=math.fsum(curve.high[i] / len(here) for i in here),
            n=min(curve.n[i] for i in here),
        )
        for _, here in sorted(of_window.items())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRow:
    """All curves of an SAE over the same neighbouring positions."""

    first: int
    last: int
    windows: tuple[Window | None, ...]
    """one per measure; None: the curve has none of these positions."""

    @property
    def n(self) -> int:
        """The fewest sequences behind any of them."""
        return min((window.n for window in self.windows if window is not None), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionTable:
    """What the curves of an SAE show, as numbers."""

    measures: tuple[str, ...]
    rows: tuple[PositionRow, ...]


def position_table(curves: Sequence[Curve], n_training: int | None) -> PositionTable:
    """*curves* side by side, a row for each window that one of them has."""
    columns = [{(window.first, window.last): window for window in windows(curve, n_training)} for curve in curves]
    ranges = sorted({key for column in columns for key in column})
    return PositionTable(
        measures=tuple(curve.measure for curve in curves),
        rows=tuple(
            PositionRow(first=key[0], last=key[1], windows=tuple(column.get(key) for column in columns))
            for key in ranges
        ),
    )


def by_position(of_sae: Sequence[Result], name: str) -> tuple[Lines, ...]:
    """The curves of one SAE, what has a limit once within the training context alone: beyond it is another scale."""
    n_training = next(
        (r.provenance.sae.n_training_context_tokens for r in of_sae if r.provenance and r.provenance.sae), None
    )
    limits = {r.limit.measure: r.limit for r in of_sae if r.limit is not None}
    drawn = []
    for k, curve in enumerate(curve for result in of_sae for curve in result.curves if curve.position):
        key = f"{name}-{k}-{curve.measure if curve.measure in _CURVES else 'curve'}"  # of a file: no stranger's name
        found = windows(curve, n_training)
        within = tuple(w for w in found if n_training is not None and w.last < n_training)
        limit = limits.get(curve.measure)
        if limit is not None and within and len(within) < len(found):
            title = f"{_CURVES.get(curve.measure, curve.measure)}, within the training context"
            drawn.append(_lines(f"{key}-within", title, curve, within, n_training=None, limit=limit))
        title = _CURVES.get(curve.measure, curve.measure)
        drawn.append(_lines(key, title, curve, found, n_training=n_training, limit=limit))
    return tuple(drawn)


def _lines(
    name: str, title: str, curve: Curve, found: Sequence[Window], *, n_training: int | None, limit: Limit | None
) -> Lines:
    marks = [
        Mark(along="y", at=side.value, label=f"limit {wording.limit(side)}") for side in (limit.sides if limit else ())
    ]
    if n_training is not None and n_training > 0:
        marks.append(Mark(along="x", at=n_training, label=f"training context {n_training}"))
    first, last = found[0], found[-1]
    least, most = min(found, key=lambda w: w.value), max(found, key=lambda w: w.value)
    unit = wording.unit(curve.unit)
    return Lines(
        name=name,
        title=title,
        description=f"{title} by tokens of context, from {first.first + 1} to {last.last + 1}: least "
        f"{wording.number(least.value)} at {least.first + 1}, most {wording.number(most.value)} at {most.first + 1} "
        f"{unit}. " + "; ".join(mark.label for mark in marks),
        x_title="tokens of context (log scale)",
        y_title=curve.unit,
        x=tuple((w.first + w.last) / 2 + 1 for w in found),
        value=tuple(w.value for w in found),
        low=tuple(w.low for w in found),
        high=tuple(w.high for w in found),
        marks=tuple(marks),
    )


def profiles(run: Record) -> tuple[Dots, ...]:
    """The limited measure of every SAE, of each check that several SAEs have."""
    return tuple(plot for check in _PROFILES if len((plot := _profile(run, check)).dots) > 1)


def _profile(run: Record, check: checks.Check) -> Dots:
    found = [(r, e) for r in run.results if r.check == check.name and (e := wording.limited(r)) is not None]
    names = list(dict.fromkeys(e.measure for _, e in found))
    units = list(dict.fromkeys(e.unit for _, e in found))
    return Dots(
        name=f"profile-{check.name}",
        title=f"{check.title} by SAE",
        description=f"{' or '.join(names)} of {len(found)} SAEs with 95 % intervals and limits, as in the table.",
        x_title=f"{' or '.join(names)}, {' or '.join(units)}",
        dots=tuple(
            Dot(
                label=r.sae_id,
                value=e.value,
                low=e.low,
                high=e.high,
                outcome=r.outcome,
                limits=tuple(side.value for side in r.limit.sides) if r.limit else (),
            )
            for r, e in found
        ),
    )


def stacks(run: Record) -> Iterator[Dots]:
    """Every check of every stack: its measure with one SAE in place, two, ..., all."""
    found = [result for result in run.results if result.steps and checks.named(result.check).of == "stack"]
    for k, result in enumerate(found):
        name = checks.named(result.check).measures[-1].name if result.limit is None else result.limit.measure
        if result.check == checks.STACKED.name and result.limit is None:
            name = "stack_ce_increase"
        steps = [(step, e) for step in result.steps for e in step.readings if e.measure == name]
        limits = tuple(side.value for side in result.limit.sides) if result.limit else ()
        if steps:
            yield Dots(
                name=f"stack-{k}",
                title=f"{checks.named(result.check).title}: {result.sae_id}",
                description=f"{name} with one more SAE in place at each row, from {wording.number(steps[0][1].value)} "
                f"to {wording.number(steps[-1][1].value)}; the limit is on the last.",
                x_title=f"{name}, {steps[0][1].unit}",
                dots=tuple(
                    Dot(
                        label=f"{'+ ' if i else ''}{step.sae_id}",
                        value=e.value,
                        low=e.low,
                        high=e.high,
                        outcome=result.outcome if i == len(steps) - 1 else "reported",
                        limits=limits if i == len(steps) - 1 else (),
                    )
                    for i, (step, e) in enumerate(steps)
                ),
                is_joined=True,
            )


def matrices(run: Record) -> tuple[Matrix, ...]:
    """The error at every later SAE over the splice's own, and what each later SAE explains less of what reaches it."""
    spliced = [r for r in run.results if r.downstream]
    if not spliced:
        return ()
    columns = tuple(dict.fromkeys(cell.sae_id for r in spliced for cell in r.downstream))
    rows = tuple(r.sae_id for r in spliced)
    carried = []
    lost = []
    for r in spliced:
        own = next((e.value for e in r.estimates if e.measure == "own_error"), 0.0)
        at = {cell.sae_id: cell for cell in r.downstream}
        carried.append(tuple(at[c].relative_error / own if c in at and own > 0 else None for c in columns))
        lost.append(
            tuple(_lost(at[c].explained_variance_clean, at[c].explained_variance) if c in at else None for c in columns)
        )
    corner = "spliced ↓   seen at →"
    of_last = {r.sae_id: r.limit for r in run.results if r.check == checks.LAST_SAE.name}
    return (
        Matrix(
            name="propagation",
            title="Error carried to later SAEs",
            description="Relative error at each later SAE over that of the splice itself (amplification).",
            corner=corner,
            rows=rows,
            columns=columns,
            cells=tuple(_finite(row) for row in carried),
            limits=tuple(_most(r.limit, "amplification_last") for r in spliced),
        ),
        Matrix(
            name="propagation-explained",
            title="What later SAEs no longer explain",
            description="Explained variance of each later SAE on its clean activation less that on what reaches it.",
            corner=corner,
            rows=rows,
            columns=columns,
            cells=tuple(_finite(row) for row in lost),
            limits=tuple(_most(of_last.get(row), "last_explained_variance_loss") for row in rows),
        ),
    )


def _lost(clean: float | None, disturbed: float | None) -> float | None:
    return None if clean is None or disturbed is None else clean - disturbed


def _finite(row: tuple[float | None, ...]) -> tuple[float | None, ...]:
    return tuple(cell if cell is not None and math.isfinite(cell) else None for cell in row)


def _most(limit: Limit | None, measure: str) -> float | None:
    return limit.value if limit is not None and limit.measure == measure and limit.kind == "max" else None
