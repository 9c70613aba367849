"""Runs, comparisons and trends as text tables, with notes below them."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from sae_checks.comparing.history import moves, series, trend
from sae_checks.comparing.history.compare import ComparedCheck, Comparison, worst_first
from sae_checks.comparing.history.runs import RunSummary
from sae_checks.comparing.history.trend import Trend
from sae_checks.errors import shown
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.judged import JudgedValue
from sae_checks.judging.limits import Limit

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
    """
    Tables of a comparison, one per verdict, the worst first; then the counts.

    Only a change has a row: checks that are the same, or have no values to compare, are counted by check and reason.
    """
    cells = list(worst_first(found.cells))
    titles = dict.fromkeys(map(_title, cells))
    head: Row = ("SAE", "check", "before", "after", "difference", "because")
    rows = {title: [_row(cell) for cell in cells if _title(cell) == title and _has_row(cell)] for title in titles}
    lines = aligned([head, *(row for title in titles for row in rows[title])])
    heading = next(lines)
    for title in titles:
        if rows[title]:
            yield f"{title} ({len(rows[title])})"
            yield heading
            yield from itertools.islice(lines, len(rows[title]))
            yield ""
    for title in titles:
        yield from _counted(title, [cell for cell in cells if _title(cell) == title and not _has_row(cell)])
    yield comparison_counts(found)


def _counted(title: str, cells: Sequence[ComparedCheck]) -> Iterator[str]:
    """`not compared, no margin: 12 (sparsity 5, golden 7)`, a paragraph per reason; what is open names its SAEs."""
    is_told = title not in ("the same", "no worse", "no difference seen")
    for reason in dict.fromkeys(cell.reason if is_told else "" for cell in cells):
        of_reason = [cell for cell in cells if not is_told or cell.reason == reason]
        names = [cell.check for cell in of_reason]
        where = ", ".join(f"{check} {names.count(check)}" for check in dict.fromkeys(names))
        if title.isupper():
            saes = tuple(dict.fromkeys(shown(cell.sae_id) for cell in of_reason))
            where += f"; {trend.listed(saes, 'SAEs')}"
        why = f", {shown(reason, n_most=400)}" if reason else ""
        yield from textwrap.wrap(
            f"{title}{why}: {len(of_reason)} ({where})",
            80,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _title(cell: ComparedCheck) -> str:
    if cell.state != "no worse":
        return cell.state.upper() if cell.state in ("regressed", "lost", "undecided") else cell.state
    words = cell.reason.partition(": ")[0] if cell.how == "paired" else "no worse"
    return words if len(words) < 40 else "no worse"


def _has_row(cell: ComparedCheck) -> bool:
    if cell.state == "no worse":
        return _title(cell) in ("better", "worse, but within the margin")
    return cell.state == "regressed" or (cell.state == "undecided" and cell.difference is not None)


def _row(cell: ComparedCheck) -> Row:
    return (
        shown(cell.sae_id),
        cell.check,
        _number(cell.before),
        _number(cell.after),
        _number(cell.difference),
        _because(cell),
    )


def _because(cell: ComparedCheck) -> str:
    """The limit, if a check fails it only now, or else the margin."""
    if cell.state == "regressed" and cell.was != "failed" and cell.now in ("failed", "error"):
        return f"limit {_short_limit(cell.limit)}" if cell.now == "failed" and cell.limit is not None else str(cell.now)
    margin = "" if cell.margin is None else f"margin {abs(cell.margin.value):g}"
    return f"{margin}, unpaired" if cell.how == "unpaired" else margin


def comparison_counts(found: Comparison) -> str:
    """`26 of 63 compared by a margin: 12 regressed, 14 no worse, 37 not compared`."""
    counts = {
        state: len(found.of(state)) for state in ("regressed", "lost", "undecided", "no worse", "new", "not compared")
    }
    words = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    n_unpaired = sum(cell.how == "unpaired" for cell in found.cells)
    how = f" ({n_unpaired} of them unpaired)" if n_unpaired else ""
    return f"{found.n_judged} of {len(found.cells)} compared by a margin{how}: {words or 'nothing'}"


def trend_table(found: Sequence[Trend]) -> Iterator[str]:
    """Tables of trends, one per SAE in natural order with a row per series; then notes, and what has become worse."""
    moved = moves.moves(found)
    of_line = {(move.line, move.last): move for move in moved}
    ordered = sorted(found, key=lambda each: series.place(each.line.sae_id, each.line.check))
    rows: list[Row] = [("  measure", "runs", "first", "last", "limit", "worse since")]
    for each in ordered:
        for part in each.parts:
            first, last = part.series.points[0], part.series.points[-1]
            move = of_line.get((each.line, last))
            rows.append(
                (
                    f"  {each.line.measure}",
                    str(len(part.series.points)),
                    f"{first.value:.3g}",
                    f"{last.value:.3g}",
                    "" if last.limit is None else _short_limit(last.limit),
                    "" if move is None else f"{move.since.started:%Y-%m-%d}",
                )
            )
    lines = aligned(rows)
    yield next(lines)
    for sae_id, of_sae in itertools.groupby(ordered, key=lambda each: each.line.sae_id):
        yield shown(sae_id)
        yield from itertools.islice(lines, sum(len(each.parts) for each in of_sae))
    yield from (f"{note.kind}: {places}: {note.text}" for note, places in trend.notes_by_text(found))
    for move in moved:
        values = f"{move.best.value:.3g} -> {move.last.value:.3g} since {move.since.started:%Y-%m-%d}"
        yield f"worse: {shown(move.line.sae_id)}: {move.line.measure} {values}"


def _short_limit(limit: Limit) -> str:
    if limit.floor is not None:
        return f"{limit.floor:g}..{limit.value:g}"
    return f"{'<=' if limit.kind == 'max' else '>='} {limit.value:g}"


def _number(of: Estimate | JudgedValue | None) -> str:
    return "" if of is None else f"{of.value:.3g}"


def _software(before: dict[str, str] | None, now: dict[str, str]) -> str:
    """All versions of the first run; later those that have changed since the run before."""
    if before is None:
        return ", ".join(f"{shown(name)} {shown(version)}" for name, version in now.items())
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    changed = (f"{shown(n)} {shown(before.get(n, 'none'))} -> {shown(now.get(n, 'none'))}" for n in names)
    return ", ".join(changed) or "the same"
