"""The trade-off of an SAE: how sparse it is against how much it keeps, as rows and as plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sae_checks import checks
from sae_checks.judging.limits import Limit
from sae_checks.record.results import Record, Result
from sae_checks.release import hooks
from sae_checks.report import wording
from sae_checks.report.plots import Point, ScatterPlot


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One SAE with its sparsity and what it keeps; None: not measured."""

    sae_id: str
    architecture: str
    """empty: never measured."""
    layer: int | None
    """index of the block of its hook; None: not known."""
    l0: float | None
    """latents/token."""
    ce_increase: float | None
    """nats/token."""
    explained_variance: float | None
    """fraction."""
    ce_limit: Limit | None
    variance_limit: Limit | None
    outcome: str
    """the gravest of its checks."""


def rows(run: Record, *, is_of_all: bool = False) -> tuple[Row, ...]:
    """The SAEs of *run*, in the order of the record, with values as judged, or *is_of_all* that was measured."""
    of_sae: dict[str, list[Result]] = {}
    for result in run.results:
        if checks.named(result.check).of == "sae":
            of_sae.setdefault(result.sae_id, []).append(result)
    return tuple(_row(sae_id, results, is_of_all=is_of_all) for sae_id, results in of_sae.items())


def _row(sae_id: str, results: Sequence[Result], *, is_of_all: bool) -> Row:
    facts = next((r.provenance.sae for r in results if r.provenance is not None and r.provenance.sae), None)
    limits = {limit.measure: limit for r in results for limit in r.limits}
    outcomes = {r.outcome for r in results}
    value = _estimate if is_of_all else _value
    return Row(
        sae_id=sae_id,
        architecture="" if facts is None else facts.architecture,
        layer=None if facts is None else _layer(facts.hook),
        l0=value(results, "l0"),
        ce_increase=value(results, "ce_increase"),
        explained_variance=value(results, "explained_variance"),
        ce_limit=limits.get("ce_increase"),
        variance_limit=limits.get("explained_variance"),
        outcome=next((o for o in ("error", "failed", "inconclusive", "passed") if o in outcomes), "reported"),
    )


def _value(results: Sequence[Result], measure: str) -> float | None:
    """The value of *measure*: as judged if it is limited, else as estimated."""
    for result in results:
        if (judged := result.judged_on(measure)) is not None:
            return judged.value
    return _estimate(results, measure)


def _estimate(results: Sequence[Result], measure: str) -> float | None:
    return next((e.value for r in results for e in r.estimates if e.measure == measure), None)


def _layer(hook: str) -> int | None:
    found = hooks.parse(hook)
    return None if found is None else found.layer


def plots(found: Sequence[Row]) -> tuple[ScatterPlot, ...]:
    """L0 against the increase of the cross-entropy, and against the explained variance, if there are two SAEs."""
    drawn = (
        ("l0-ce_increase", "CE increase against L0", "ce_increase, nats/token", _points(found, "ce_increase")),
        (
            "l0-explained_variance",
            "Explained variance against L0",
            "explained variance",
            _points(found, "explained_variance"),
        ),
    )
    return tuple(
        ScatterPlot(
            name=name,
            title=title,
            description=f"{len(points)} SAEs, from {wording.number(min(p.x for p in points))} to "
            f"{wording.number(max(p.x for p in points))} active latents per token and from "
            f"{wording.number(min(p.y for p in points))} to {wording.number(max(p.y for p in points))} {y_title}.",
            x_title="L0, latents/token",
            y_title=y_title,
            points=points,
        )
        for name, title, y_title, points in drawn
        if len(points) > 1
    )


def _points(found: Sequence[Row], measure: str) -> tuple[Point, ...]:
    def each() -> Iterator[Point]:
        for row in found:
            is_loss = measure == "ce_increase"
            y, limit = (row.ce_increase, row.ce_limit) if is_loss else (row.explained_variance, row.variance_limit)
            if row.l0 is not None and y is not None:
                yield Point(
                    label=row.sae_id,
                    x=row.l0,
                    y=y,
                    group=row.architecture,
                    layer=row.layer,
                    is_red=limit is not None and not limit.allows(y),
                    limits=tuple(side.value for side in limit.sides) if limit else (),
                )

    return tuple(each())
