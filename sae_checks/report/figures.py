"""A record -> the plots of a report, and the table of numbers by position."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sae_checks import checks
from sae_checks.judging.judged import JudgedValue
from sae_checks.judging.limits import Limit
from sae_checks.judging.position_readings import Curve
from sae_checks.record.results import Record, Result
from sae_checks.report import wording
from sae_checks.report.plots import Dot, DotPlot, LinePlot, MatrixPlot, ReferenceLine

N_DOTS_MOST = 12
"""rows of a plot of all SAEs; of more SAEs it shows the worst."""
N_COLUMNS_MOST = 8
"""columns of a matrix; of more SAEs it shows the next and the last."""
_PER_OCTAVE = 4
SMOOTHING = (
    f"Each point is a mean over neighbouring positions, {_PER_OCTAVE} windows per doubling of the context. The band is "
    "the mean of the positions' 95 % intervals; each of these holds for its own position only. A limit applies to the "
    "mean over all positions. The record has every position, not smoothed."
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
    """The mean of a curve over neighbouring positions."""

    first: int
    last: int
    """positions; the first token has position 0."""
    value: float
    low: float
    high: float
    n: int
    """sequences at the position that has fewest."""


def windows(curve: Curve, n_training: int | None) -> tuple[Window, ...]:
    """
    Means of *curve* over windows of a quarter of an octave; see SMOOTHING.

    No window spans the end of the training context, where the curve may jump.
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
            n=min(curve.n_sequences[i] for i in here),
        )
        for _, here in sorted(of_window.items())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRow:
    """One row of a PositionTable: all curves of an SAE over the same positions."""

    first: int
    last: int
    windows: tuple[Window | None, ...]
    """one per measure; None: the curve has none of these positions."""

    @property
    def n(self) -> int:
        """Sequences at the position that has fewest."""
        return min((window.n for window in self.windows if window is not None), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionTable:
    """The curves of an SAE as numbers."""

    measures: tuple[str, ...]
    rows: tuple[PositionRow, ...]


def position_table(curves: Sequence[Curve], n_training: int | None) -> PositionTable:
    """*curves* as columns, with a row for each window of any of them."""
    columns = [{(window.first, window.last): window for window in windows(curve, n_training)} for curve in curves]
    ranges = sorted({key for column in columns for key in column})
    return PositionTable(
        measures=tuple(curve.measure for curve in curves),
        rows=tuple(
            PositionRow(first=key[0], last=key[1], windows=tuple(column.get(key) for column in columns))
            for key in ranges
        ),
    )


def position_plots(results: Sequence[Result], name: str) -> tuple[LinePlot, ...]:
    """
    Plots of the curves of one SAE, whose plots' names begin with *name*.

    A limited curve is drawn a second time within the training context only: values beyond it may dwarf the limit.
    """
    n_training = next(
        (r.provenance.sae.n_training_context_tokens for r in results if r.provenance and r.provenance.sae), None
    )
    limits = {limit.measure: limit for r in results for limit in r.limits}
    drawn = []
    for k, curve in enumerate(curve for result in results for curve in result.curves if curve.position):
        # WHY not any measure: the name becomes an HTML id, and a record may name anything
        key = f"{name}-{k}-{curve.measure if curve.measure in _CURVES else 'curve'}"
        found = windows(curve, n_training)
        within = tuple(w for w in found if n_training is not None and w.last < n_training)
        limit = limits.get(curve.measure)
        if limit is not None and within and len(within) < len(found):
            title = f"{_CURVES.get(curve.measure, curve.measure)}, within the training context"
            drawn.append(_line_plot(f"{key}-within", title, curve, within, n_training=None, limit=limit))
        title = _CURVES.get(curve.measure, curve.measure)
        drawn.append(_line_plot(key, title, curve, found, n_training=n_training, limit=limit))
    return tuple(drawn)


def _line_plot(
    name: str, title: str, curve: Curve, found: Sequence[Window], *, n_training: int | None, limit: Limit | None
) -> LinePlot:
    marks = [
        ReferenceLine(along="y", at=side.value, label=f"limit {wording.limit(side)}")
        for side in (limit.sides if limit else ())
    ]
    if n_training is not None and n_training > 0:
        marks.append(ReferenceLine(along="x", at=n_training, label=f"training context {n_training}"))
    first, last = found[0], found[-1]
    least, most = min(found, key=lambda w: w.value), max(found, key=lambda w: w.value)
    unit = wording.unit(curve.unit)
    return LinePlot(
        name=name,
        title=title,
        description=f"{title} by tokens of context, from {first.first + 1} to {last.last + 1}: minimum "
        f"{wording.number(least.value)} at {least.first + 1}, maximum {wording.number(most.value)} at "
        f"{most.first + 1} {unit}. " + "; ".join(mark.label for mark in marks),
        x_title="tokens of context (log scale)",
        y_title=curve.unit,
        x=tuple((w.first + w.last) / 2 + 1 for w in found),
        value=tuple(w.value for w in found),
        low=tuple(w.low for w in found),
        high=tuple(w.high for w in found),
        marks=tuple(marks),
    )


def profile_plots(run: Record) -> tuple[DotPlot, ...]:
    """Plots of the limited measure by SAE, one per check with at least two SAEs."""
    return tuple(plot for check in _PROFILES if len((plot := _profile(run, check)).dots) > 1)


def _profile(run: Record, check: checks.Check) -> DotPlot:
    found = [(r, e) for r in run.results if r.check == check.name and (e := _main_value(r)) is not None]
    n_saes = len(found)
    if n_saes > N_DOTS_MOST:
        found = sorted(found, key=lambda pair: -wording.excess(pair[1].value, pair[0].main_limit))[:N_DOTS_MOST]
    names = list(dict.fromkeys(e.measure for _, e in found))
    units = list(dict.fromkeys(e.unit for _, e in found))
    return DotPlot(
        name=f"profile-{check.name}",
        title=f"{check.title} by SAE{f', the {N_DOTS_MOST} worst' if n_saes > N_DOTS_MOST else ''}",
        description=f"{' or '.join(names)} of {len(found)} of {n_saes} SAEs, with intervals and limits.",
        x_title=f"{' or '.join(names)}, {' or '.join(units)}",
        dots=tuple(
            Dot(
                label=r.sae_id,
                value=e.value,
                low=wording.bounds(e)[1],
                high=wording.bounds(e)[2],
                outcome=r.outcome,
                limits=tuple(side.value for side in r.main_limit.sides) if r.main_limit else (),
            )
            for r, e in found
        ),
    )


def _main_value(result: Result) -> JudgedValue | None:
    """The value of the measure that stands for the check, whichever limit decides."""
    return result.judged if result.main_limit is None else result.judged_on(result.main_limit.measure)


def stack_plots(run: Record) -> Iterator[DotPlot]:
    """Plots of each check of each stack: its measure with 1, 2, ... and all SAEs spliced in."""
    found = [result for result in run.results if result.stack_steps and checks.named(result.check).of == "stack"]
    for k, result in enumerate(found):
        name = checks.named(result.check).measures[-1].name if result.limit is None else result.limit.measure
        if result.check == checks.STACKED.name and result.limit is None:
            name = "stack_ce_increase"
        steps = [(step.sae_id, e) for step in result.stack_steps for e in step.estimates if e.measure == name]
        values = [(e.value, e.low, e.high) for _, e in steps]
        if steps and result.judged is not None and result.judged.measure == name:
            values[-1] = wording.bounds(result.judged)  # all of the stack: the value that was judged
        limits = tuple(side.value for side in result.limit.sides) if result.limit else ()
        if steps:
            yield DotPlot(
                name=f"stack-{k}",
                title=f"{checks.named(result.check).title}: {result.sae_id}",
                description=f"{name} with one more SAE spliced in at each row, from "
                f"{wording.number(values[0][0])} to {wording.number(values[-1][0])}; the limit applies to "
                "the last row.",
                x_title=f"{name}, {steps[0][1].unit}",
                dots=tuple(
                    Dot(
                        label=f"{'+ ' if i else ''}{sae_id}",
                        value=values[i][0],
                        low=values[i][1],
                        high=values[i][2],
                        outcome=result.outcome if i == len(steps) - 1 else "reported",
                        limits=limits if i == len(steps) - 1 else (),
                    )
                    for i, (sae_id, _) in enumerate(steps)
                ),
                is_joined=True,
            )


def propagation_plots(run: Record) -> tuple[MatrixPlot, ...]:
    """Matrices of how each splice affects later SAEs: amplification of its error, and loss of explained variance."""
    spliced = [r for r in run.results if r.downstream]
    if not spliced:
        return ()
    columns = tuple(dict.fromkeys(cell.sae_id for r in spliced for cell in r.downstream))
    is_wide = len(columns) > N_COLUMNS_MOST
    rows = tuple(r.sae_id for r in spliced)
    amplification = []
    loss = []
    for r in spliced:
        own = next((e.value for e in r.estimates if e.measure == "own_error"), 0.0)
        at = {cell.sae_id: cell for cell in r.downstream}
        seen = (r.downstream[0], r.downstream[-1]) if is_wide else tuple(at.get(c) for c in columns)
        amplification.append(tuple(None if c is None or own <= 0 else c.relative_error / own for c in seen))
        loss.append(tuple(None if c is None else _loss(c.explained_variance_clean, c.explained_variance) for c in seen))
    columns = ("the next SAE", "the last SAE") if is_wide else columns
    corner = "spliced ↓   seen at →"
    of_last = {r.sae_id: r.limit for r in run.results if r.check == checks.LAST_SAE.name}
    return (
        MatrixPlot(
            name="propagation",
            title="Error carried to later SAEs",
            description="Amplification: the relative error at each later SAE over that of the splice itself.",
            corner=corner,
            rows=rows,
            columns=columns,
            cells=tuple(_finite(row) for row in amplification),
            limits=tuple(_upper_limit(r.limit, "amplification_last") for r in spliced),
        ),
        MatrixPlot(
            name="propagation-explained",
            title="Explained variance that later SAEs lose",
            description="Explained variance of each later SAE on its clean activation, minus that on the activation "
            "behind the splice.",
            corner=corner,
            rows=rows,
            columns=columns,
            cells=tuple(_finite(row) for row in loss),
            limits=tuple(_upper_limit(of_last.get(row), "last_explained_variance_loss") for row in rows),
        ),
    )


def _loss(clean: float | None, spliced: float | None) -> float | None:
    return None if clean is None or spliced is None else clean - spliced


def _finite(row: tuple[float | None, ...]) -> tuple[float | None, ...]:
    return tuple(cell if cell is not None and math.isfinite(cell) else None for cell in row)


def _upper_limit(limit: Limit | None, measure: str) -> float | None:
    return limit.value if limit is not None and limit.measure == measure and limit.kind == "max" else None
