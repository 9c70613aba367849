"""Heads, comparisons and lines as text: aligned columns, and what there is to say below them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sae_checks.comparing.history.compare import Compared, Comparison, in_order
from sae_checks.comparing.history.runs import Head
from sae_checks.comparing.history.trend import Trend
from sae_checks.errors import shown
from sae_checks.judging.estimates import Estimate

Row = tuple[str, ...]


def aligned(rows: Sequence[Row]) -> Iterator[str]:
    """*rows* in columns, the first of them as a head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def of_heads(heads: Sequence[Head]) -> Iterator[str]:
    """One line per run, the outcomes that any of them has as columns; of software what has changed since the last."""
    outcomes = [outcome for i, (outcome, _) in enumerate(heads[0].counts) if any(h.counts[i][1] for h in heads)]
    rows: list[Row] = [
        ("run", "started", "release", "revision", *(o.replace("_", " ") for o in outcomes), "exit", "software")
    ]
    before: dict[str, dict[str, str]] = {}
    for head in heads:
        counts = dict(head.counts)
        versions = {package.name: package.version for package in head.software}
        rows.append(
            (
                head.run_id,
                shown(head.started)[:19],
                shown(head.release, n_most=40),
                "-" if head.revision is None else shown(head.revision[:12]),
                *(str(counts[outcome]) for outcome in outcomes),
                "-" if head.exit_status is None else str(head.exit_status),
                _moved(before.get(head.release), versions),
            )
        )
        before[head.release] = versions
    return aligned(rows)


def of_comparison(found: Comparison) -> Iterator[str]:
    """A line per cell, the worst first; then, for what is worse or open, why; then the tally."""
    cells = list(in_order(found.cells))
    rows: list[Row] = [("SAE", "check", "before", "after", "difference", "95 %", "margin", "pairs", "verdict")]
    rows += [_row(cell) for cell in cells]
    yield from aligned(rows)
    for cell in cells:
        if cell.state in ("regressed", "lost", "undecided"):
            yield f"{_said(cell.state).upper()}: {cell.check} of {shown(cell.sae_id)}: {shown(cell.reason, n_most=400)}"
            if cell.margin is not None and cell.how != "not":
                yield f"  margin written in {shown(cell.margin.where)}: {shown(cell.margin.source)}"
    yield tally(found)


def tally(found: Comparison) -> str:
    """`26 compared: 12 regressed, 14 no worse; 37 not compared`."""
    counts = {
        state: len(found.of(state)) for state in ("regressed", "lost", "undecided", "no worse", "new", "not compared")
    }
    told = ", ".join(f"{n} {_said(state)}" for state, n in counts.items() if n)
    n_unpaired = sum(cell.how == "unpaired" for cell in found.cells)
    how = f" ({n_unpaired} of them unpaired)" if n_unpaired else ""
    return f"{found.n_judged} of {len(found.cells)} compared by a margin{how}: {told or 'nothing'}"


def of_trends(trends: Iterable[Trend]) -> Iterator[str]:
    """A line per series, and below the table every note."""
    rows: list[Row] = [("SAE", "measure", "key", "runs", "from", "to", "first", "last", "limit")]
    told: list[str] = []
    for trend in trends:
        for part in trend.parts:
            points = part.series.points
            last = points[-1]
            rows.append(
                (
                    shown(trend.line.sae_id),
                    f"{trend.line.measure} {trend.line.unit}",
                    part.series.key.config_hash,
                    str(len(points)),
                    f"{points[0].started:%Y-%m-%d}",
                    f"{last.started:%Y-%m-%d}",
                    f"{points[0].estimate.value:.4g}",
                    f"{last.estimate.value:.4g}",
                    "" if last.limit is None else shown(last.limit),
                )
            )
        told += [
            f"{note.kind}: {trend.line.measure} of {shown(trend.line.sae_id)}: {note.text}" for note in trend.notes
        ]
    yield from aligned(rows)
    yield from told


def _row(cell: Compared) -> Row:
    return (
        shown(cell.sae_id),
        f"{cell.check} ({cell.measure})",
        _number(cell.before),
        _number(cell.after),
        _number(cell.difference),
        "" if cell.difference is None else f"[{cell.difference.low:.4g}, {cell.difference.high:.4g}]",
        "" if cell.margin is None else f"{abs(cell.margin.value):g} {cell.margin.unit}",
        {"paired": str(cell.difference.n if cell.difference else ""), "unpaired": "unpaired", "not": ""}[cell.how],
        verdict_of(cell),
    )


def verdict_of(cell: Compared) -> str:
    """Its state; of what is no worse how, and of what was not compared why."""
    if cell.state == "no worse":
        how = cell.reason.partition(": ")[0] if cell.how == "paired" else "no worse"
        return how if len(how) < 40 else "no worse"
    if cell.state in ("not compared", "new"):
        return f"{cell.state}: {shown(cell.reason)}"
    return cell.state.upper()


def _said(state: str) -> str:
    return {"lost": "lost (decided before, open now)"}.get(state, state)


def _number(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.4g}"


def _moved(before: dict[str, str] | None, now: dict[str, str]) -> str:
    """All versions, or what has changed since the run before."""
    if before is None:
        return ", ".join(f"{shown(name)} {shown(version)}" for name, version in now.items())
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    changed = (f"{shown(n)} {shown(before.get(n, 'none'))} -> {shown(now.get(n, 'none'))}" for n in names)
    return ", ".join(changed) or "the same"
