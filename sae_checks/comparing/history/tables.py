"""Runs, comparisons and trends as text tables, with notes below them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sae_checks.comparing.history import moves, trend
from sae_checks.comparing.history.compare import ComparedCheck, Comparison, worst_first
from sae_checks.comparing.history.runs import RunSummary
from sae_checks.comparing.history.trend import Trend
from sae_checks.errors import shown
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.limits import Limit
from sae_checks.release.natural_order import natural_key

Row = tuple[str, ...]


def aligned(rows: Sequence[Row]) -> Iterator[str]:
    """*rows* with aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def run_table(summaries: Sequence[RunSummary]) -> Iterator[str]:
    """Table of runs: a column per outcome that any run has, and the software that has changed since the run before."""
    outcomes = [outcome for i, (outcome, _) in enumerate(summaries[0].counts) if any(h.counts[i][1] for h in summaries)]
    rows: list[Row] = [
        ("run", "started", "release", "revision", *(o.replace("_", " ") for o in outcomes), "exit", "software")
    ]
    before: dict[str, dict[str, str]] = {}
    for summary in summaries:
        counts = dict(summary.counts)
        versions = {package.name: package.version for package in summary.software}
        rows.append(
            (
                summary.run_id,
                shown(summary.started)[:19],
                shown(summary.release, n_most=40),
                "-" if summary.revision is None else shown(summary.revision[:12]),
                *(str(counts[outcome]) for outcome in outcomes),
                "-" if summary.exit_status is None else str(summary.exit_status),
                _software(before.get(summary.release), versions),
            )
        )
        before[summary.release] = versions
    return aligned(rows)


def comparison_table(found: Comparison) -> Iterator[str]:
    """Table of a comparison, the worst checks first; then why checks are red or undecided; then the counts."""
    cells = list(worst_first(found.cells))
    rows: list[Row] = [("SAE", "check", "before", "after", "difference", "95 %", "margin", "pairs", "verdict")]
    rows += [_row(cell) for cell in cells]
    yield from aligned(rows)
    for cell in cells:
        if cell.state in ("regressed", "lost", "undecided"):
            state = _state_words(cell.state).upper()
            yield f"{state}: {cell.check} of {shown(cell.sae_id)}: {shown(cell.reason, n_most=400)}"
            if cell.margin is not None and cell.how != "not":
                yield f"  margin written in {shown(cell.margin.where)}: {shown(cell.margin.source)}"
    yield comparison_counts(found)


def comparison_counts(found: Comparison) -> str:
    """`26 of 63 compared by a margin: 12 regressed, 14 no worse, 37 not compared`."""
    counts = {
        state: len(found.of(state)) for state in ("regressed", "lost", "undecided", "no worse", "new", "not compared")
    }
    words = ", ".join(f"{n} {_state_words(state)}" for state, n in counts.items() if n)
    n_unpaired = sum(cell.how == "unpaired" for cell in found.cells)
    how = f" ({n_unpaired} of them unpaired)" if n_unpaired else ""
    return f"{found.n_judged} of {len(found.cells)} compared by a margin{how}: {words or 'nothing'}"


def trend_table(found: Sequence[Trend]) -> Iterator[str]:
    """Table of trends, a row per series, SAEs in natural order; below it what has become worse, and the notes."""
    moved = {(move.line, move.last): move for move in moves.moves(found)}
    rows: list[Row] = [("SAE", "measure", "since", "runs", "first", "last", "limit", "worse since")]
    for each in sorted(found, key=lambda each: natural_key(each.line.sae_id)):
        for part in each.parts:
            points = part.series.points
            last = points[-1]
            move = moved.get((each.line, last))
            rows.append(
                (
                    shown(each.line.sae_id),
                    each.line.measure,
                    f"{points[0].started:%Y-%m-%d}",
                    str(len(points)),
                    f"{points[0].value:.3g}",
                    f"{last.value:.3g}",
                    "" if last.limit is None else _short_limit(last.limit),
                    "" if move is None else f"{move.since.started:%Y-%m-%d}",
                )
            )
    yield from aligned(rows)
    yield from (f"{note.kind}: {places}: {note.text}" for note, places in trend.notes_by_text(found))


def _short_limit(limit: Limit) -> str:
    if limit.floor is not None:
        return f"{limit.floor:g}..{limit.value:g}"
    return f"{'<=' if limit.kind == 'max' else '>='} {limit.value:g}"


def _row(cell: ComparedCheck) -> Row:
    return (
        shown(cell.sae_id),
        f"{cell.check} ({cell.measure})",
        _number(cell.before),
        _number(cell.after),
        _number(cell.difference),
        "" if cell.difference is None else f"[{cell.difference.low:.4g}, {cell.difference.high:.4g}]",
        "" if cell.margin is None else f"{abs(cell.margin.value):g} {cell.margin.unit}",
        {"paired": str(cell.difference.n if cell.difference else ""), "unpaired": "unpaired", "not": ""}[cell.how],
        verdict_words(cell),
    )


def verdict_words(cell: ComparedCheck) -> str:
    """The verdict column: the state, with its own words if it is no worse, and the reason if it was not compared."""
    if cell.state == "no worse":
        how = cell.reason.partition(": ")[0] if cell.how == "paired" else "no worse"
        return how if len(how) < 40 else "no worse"
    if cell.state in ("not compared", "new"):
        return f"{cell.state}: {shown(cell.reason)}"
    return cell.state.upper()


def _state_words(state: str) -> str:
    return {"lost": "lost (decided before, open now)"}.get(state, state)


def _number(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.4g}"


def _software(before: dict[str, str] | None, now: dict[str, str]) -> str:
    """All versions of the first run; later those that have changed since the run before."""
    if before is None:
        return ", ".join(f"{shown(name)} {shown(version)}" for name, version in now.items())
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    changed = (f"{shown(n)} {shown(before.get(n, 'none'))} -> {shown(now.get(n, 'none'))}" for n in names)
    return ", ".join(changed) or "the same"
