"""The tables at the end of a run: checks by SAE, checks of many SAEs, and comparisons with the baseline."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sae_checks import checks
from sae_checks.record.results import Result
from sae_checks.release.natural_order import natural_key
from sae_checks.report import wording
from sae_checks.report.beside_limit import beside_limit, excess

N_ROWS_MOST = 15
"""SAEs or comparisons that are shown one by one; -v shows all."""

RED = ("error", "failed", "inconclusive")
"""Outcomes that are not green, the gravest first."""

Tone = Literal["good", "bad", "warn", "plain"]

TONES: dict[str, Tone] = {
    "passed": "good",
    "failed": "bad",
    "inconclusive": "warn",
    "not_measured": "plain",
    "reported": "plain",
    "error": "bad",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StyledText:
    """Text in one tone; plugin/closing.py gives each tone its colour."""

    text: str
    tone: Tone = "plain"


Line = tuple[StyledText, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column of a table."""

    head: str
    cells: tuple[StyledText, ...]
    limit: str = ""
    """the limit that holds for every row; empty: it differs, or there is none."""
    is_red: bool = False

    @property
    def width(self) -> int:
        return max(len(self.head), len(self.limit), *(len(cell.text) for cell in self.cells))


def tables(results: Sequence[Result], *, n_columns: int, shows_all: bool = False) -> tuple[Line, ...]:
    """All tables of a run, no line longer than *n_columns*."""
    of_saes, of_stacks, compared = (
        [r for r in results if checks.named(r.check).of == kind] for kind in ("sae", "stack", "comparison")
    )
    is_many = len({r.sae_id for r in of_saes}) > N_ROWS_MOST and not shows_all
    return (
        *(table_of_checks(of_saes, n_columns) if is_many else matrix(of_saes, n_columns, shows_all=shows_all)),
        *matrix(of_stacks, n_columns, title="stack", shows_all=shows_all),
        *baseline_table(compared, n_columns, shows_all=shows_all),
    )


def matrix(
    results: Sequence[Result], n_columns: int, *, title: str = "SAE", shows_all: bool = False
) -> tuple[Line, ...]:
    """
    Table with a row per SAE and a column per check, its limit below its name.

    Columns that do not fit follow in further blocks. If some are red, those that are green everywhere are only named.
    """
    sae_ids = list(dict.fromkeys(result.sae_id for result in results))
    if not sae_ids:
        return ()
    cells = {(result.sae_id, result.check): result for result in results}
    columns = []
    for check in checks.CHECKS:
        of_check = [cells.get((sae_id, check.name)) for sae_id in sae_ids]
        if any(r is not None and r.outcome != "not_measured" for r in of_check):
            columns.append(_column(check, of_check))
    has_limits = any(column.limit for column in columns)
    first = _Column(
        head=title,
        limit="limit" if has_limits else "",
        cells=tuple(StyledText(text=wording.text(each)) for each in sae_ids),
    )
    lines: tuple[Line, ...] = ()
    is_too_wide = sum(column.width + 2 for column in (first, *columns)) - 2 > n_columns
    if is_too_wide and not shows_all and any(column.is_red for column in columns):
        green = ", ".join(column.head for column in columns if not column.is_red)
        columns = [column for column in columns if column.is_red]
        lines = wrapped(f"not red anywhere: {green}; -v shows them", n_columns) if green else ()
    return (*_aligned(first, columns, n_columns), *lines, *_reasons(results, n_columns))


def _column(check: checks.Check, results: Sequence[Result | None]) -> _Column:
    """The column of *check*: signs and values, and the limit if it is the same for all."""
    limits = {wording.limit(result.main_limit) for result in results if result is not None}
    is_same = len(limits) == 1
    return _Column(
        head=check.short,
        limit=limits.pop() if is_same else "",
        cells=tuple(
            StyledText(text="")
            if r is None
            else StyledText(text=_cell(r, shows_limit=not is_same), tone=TONES[r.outcome])
            for r in results
        ),
        is_red=any(r is not None and r.outcome in RED for r in results),
    )


def _cell(result: Result, *, shows_limit: bool) -> str:
    """`✓ 0.02`; with its own limit `✕ 0.51 > 0.3`."""
    sign, word = wording.OUTCOMES[result.outcome]
    if result.outcome == "error":
        return f"{sign} {word}"
    if result.judged is None or result.outcome == "not_measured":
        return sign
    value = beside_limit(result) if shows_limit and result.outcome in RED else wording.number(result.judged.value)
    is_of_column = result.judged.bound is None and result.limit == result.main_limit
    name = "" if is_of_column else f"{result.judged.measure} "
    return f"{sign} {name}{value}"


def _reasons(results: Sequence[Result], n_columns: int) -> tuple[Line, ...]:
    """Why checks were measured on no SAE, a reason at a time."""
    measured = {result.check for result in results if result.outcome != "not_measured"}
    names: dict[str, dict[str, None]] = {}
    for result in results:
        if result.check not in measured:
            names.setdefault(result.reason.partition("\n")[0], {})[result.check] = None
    return tuple(
        line
        for reason, of_reason in names.items()
        for line in wrapped(f"not measured: {', '.join(of_reason)}: {wording.text(reason)}", n_columns)[:2]
    )


def table_of_checks(results: Sequence[Result], n_columns: int) -> tuple[Line, ...]:
    """Table with a row per check: how many SAEs it passed, and the worst of them with its value and limit."""
    by_check = {c.name: [r for r in results if r.check == c.name] for c in checks.CHECKS}
    rows = {name: of_check for name, of_check in by_check.items() if any(r.outcome != "not_measured" for r in of_check)}
    if not rows:
        return _reasons(results, n_columns)
    columns = [_Column(head="check", cells=tuple(StyledText(text=name) for name in rows))]
    for head, outcomes in (("ok", ("passed",)), ("failed", ("failed", "error")), ("undecided", ("inconclusive",))):
        counts = [sum(r.outcome in outcomes for r in of_check) for of_check in rows.values()]
        if any(counts):
            columns.append(_Column(head=head, cells=tuple(StyledText(text=str(n or "")) for n in counts)))
    worst = [min(of_check, key=_worst_first) for of_check in rows.values()]
    columns.append(_Column(head="worst", cells=tuple(StyledText(text=_worst(r), tone=TONES[r.outcome]) for r in worst)))
    n_left = max(12, n_columns - sum(column.width + 2 for column in columns))
    ids = ("" if r.outcome == "reported" else cut(wording.text(r.sae_id), n_left) for r in worst)
    tones = (TONES[r.outcome] for r in worst)
    cells = tuple(StyledText(text=sae_id, tone=tone) for sae_id, tone in zip(ids, tones, strict=True))
    columns.append(_Column(head="SAE", cells=cells))
    return (*_aligned(columns[0], columns[1:], n_columns), *_reasons(results, n_columns))


def _worst(result: Result) -> str:
    """The worst value beside its limit; a word where there is none."""
    return beside_limit(result) or " ".join(wording.OUTCOMES[result.outcome])


def _worst_first(result: Result) -> tuple[int, float, object]:
    gravity = RED.index(result.outcome) if result.outcome in RED else len(RED)
    return gravity, -excess(result), natural_key(result.sae_id)


def baseline_table(results: Sequence[Result], n_columns: int, *, shows_all: bool = False) -> tuple[Line, ...]:
    """Table of the comparisons with the baseline that are worse, the worst first; with *shows_all* of all."""
    shown = sorted(
        (r for r in results if shows_all or r.outcome in RED or _own_words(r).startswith("worse")), key=_worst_first
    )
    n_left_out = len(results) - len(shown)
    if not shows_all:
        n_left_out += max(0, len(shown) - N_ROWS_MOST)
        shown = shown[:N_ROWS_MOST]
    lines: tuple[Line, ...] = ()
    if n_left_out:
        lines = wrapped(f"{n_left_out} more comparisons with the baseline; -v shows them", n_columns)
    if not shown:
        return lines
    first = _Column(head="against the baseline", cells=tuple(StyledText(text=wording.text(r.sae_id)) for r in shown))
    columns = []
    for measure in ("before", "after", "difference"):
        values = (next((e for e in r.estimates if e.measure == measure), None) for r in shown)
        cells = tuple(StyledText(text="" if e is None else wording.number(e.value)) for e in values)
        columns.append(_Column(head=measure, cells=cells))
    margins = (r.limit for r in shown)
    columns.append(
        _Column(head="margin", cells=tuple(StyledText(text="" if m is None else f"{abs(m.value):g}") for m in margins))
    )
    words = (StyledText(text=_own_words(r) or wording.OUTCOMES[r.outcome][1], tone=TONES[r.outcome]) for r in shown)
    columns.append(_Column(head="verdict", cells=tuple(words)))
    return (*_aligned(first, columns, n_columns), *lines)


def _own_words(result: Result) -> str:
    """The words of a comparison that passed: `the same`, `worse, but within the margin`."""
    own_words, _, rest = result.reason.partition(": ")
    return own_words if result.outcome == "passed" and rest else ""


def wrapped(text: str, n_columns: int, *, indent: str = "", tone: Tone = "plain") -> tuple[Line, ...]:
    """*text* in lines of at most *n_columns*; all but the first begin with two spaces more than *indent*."""
    broken = textwrap.wrap(
        text, max(10, n_columns), initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )
    return tuple((StyledText(text=line, tone=tone),) for line in broken)


def text_of(line: Line) -> str:
    """*line* without its colours."""
    return "".join(piece.text for piece in line).rstrip()


def cut(text: str, n_most: int) -> str:
    """*text*, in its middle shortened to *n_most* characters."""
    if len(text) <= n_most:
        return text
    n_head = (n_most - 1) // 2
    return f"{text[:n_head]}…{text[len(text) - (n_most - 1 - n_head) :]}"


def _aligned(first: _Column, columns: Sequence[_Column], n_columns: int) -> tuple[Line, ...]:
    """The table in blocks that fit into *n_columns*; where names are long, each on a line of its own."""
    columns = [_cut_column(column, n_columns - 2) for column in columns]
    widest = max((column.width for column in columns), default=0)
    is_apart = first.width + 2 + widest > n_columns
    lines: list[Line] = []
    for group in _groups(columns, n_columns - (0 if is_apart else first.width) - 2):
        lines += [_row(first.head, [column.head for column in group], first, group, is_apart=is_apart)]
        if any(column.limit for column in group):
            lines += [_row(first.limit, [column.limit for column in group], first, group, is_apart=is_apart)]
        for i, name in enumerate(first.cells):
            cells = [column.cells[i] for column in group]
            if not any(cell.text for cell in cells):
                continue
            if is_apart:
                lines += [(StyledText(text=cut(name.text, n_columns)),)]
            lines += [_row(name.text, cells, first, group, is_apart=is_apart)]
    return tuple(lines)


def _cut_column(column: _Column, n_columns: int) -> _Column:
    """*column* with what is wider than *n_columns* cut."""
    return replace(column, cells=tuple(replace(cell, text=cut(cell.text, n_columns)) for cell in column.cells))


def _groups(columns: Sequence[_Column], n_columns: int) -> Iterable[Sequence[_Column]]:
    """Divide *columns* into groups, each not wider than *n_columns*."""
    group: list[_Column] = []
    for column in columns:
        if group and sum(each.width + 2 for each in group) + column.width > n_columns:
            yield group
            group = []
        group.append(column)
    if group:
        yield group


def _row(
    name: str, cells: Sequence[str | StyledText], first: _Column, group: Sequence[_Column], *, is_apart: bool
) -> Line:
    """One line of a table, without spaces at its end."""
    pieces = [cell if isinstance(cell, StyledText) else StyledText(text=cell) for cell in cells]
    padded = [
        StyledText(text=piece.text.ljust(column.width) + "  ", tone=piece.tone)
        for piece, column in zip(pieces[:-1], group[:-1], strict=True)
    ]
    head = StyledText(text="  " if is_apart else name.ljust(first.width) + "  ")
    return (head, *padded, pieces[-1])
