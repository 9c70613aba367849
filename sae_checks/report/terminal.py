"""The last lines of a run: what is not green, why, what to type next, and the verdict."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from sae_checks import checks
from sae_checks.judging import recorded_l0
from sae_checks.record.results import Result
from sae_checks.record.run_verdict import Word
from sae_checks.release.natural_order import natural_key
from sae_checks.report import wording
from sae_checks.report.beside_limit import beside_limit, excess
from sae_checks.report.terminal_tables import N_ROWS_MOST, RED, Line, StyledText, Tone, cut, wrapped

N_MESSAGES_MOST = 10
"""messages of single checks that a run shows; -v shows all."""

_N_SPACIOUS = 5
"""subjects of which each may take more than a line."""

_WORDS: dict[str, tuple[str, Tone]] = {
    "passed": ("PASSED", "good"),
    "failed": ("FAILED", "bad"),
    "not_decided": ("NOT DECIDED", "warn"),
}
_COUNTS = {
    "passed": "ok",
    "failed": "failed",
    "error": "errors",
    "inconclusive": "undecided",
    "not_measured": "not measured",
    "reported": "reported",
}
_HEADS = {"failed": "FAILED", "inconclusive": "INCONCLUSIVE"}
_KINDS = ("sae", "stack", "comparison")


def last_lines(
    name: str,
    results: Sequence[Result],
    verdict: Word,
    *,
    n_columns: int,
    page: Path | None = None,
    n_timed: int = 0,
    shows_all: bool = False,
) -> tuple[Line, ...]:
    """
    The lines that conclude a run, the verdict last.

    Args:
        name: of the release.
        results: of the selected checks.
        verdict: on the run.
        n_columns: width of the terminal; no line is longer.
        page: the report, if one was written.
        n_timed: SAEs whose speed was measured.
        shows_all: list every subject that is not green.
    """
    red = red_subjects(results)
    shown = red if shows_all else red[:N_ROWS_MOST]
    lines = [*_l0_lines(results, n_columns), *_accepted_lines(results, n_columns)]
    for of_subject in shown:
        lines += _subject_lines(of_subject, n_columns, is_spacious=len(shown) <= _N_SPACIOUS)
    if len(red) > len(shown):
        lines += wrapped(f"and {len(red) - len(shown)} more; -v shows them", n_columns)
    lines += _next_lines(red, page, n_columns)
    return (*lines, *_verdict_lines(name, results, verdict, n_columns, n_timed))


def red_subjects(results: Sequence[Result]) -> list[tuple[Result, ...]]:
    """The red results of each SAE, stack and comparison, the worst subject and the worst check first."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.outcome in RED:
            found.setdefault(result.sae_id, []).append(result)

    def worst_first(of_subject: Sequence[Result]) -> tuple[int, int, int, object]:
        n_failed = sum(r.outcome != "inconclusive" for r in of_subject)
        kind = _KINDS.index(checks.named(of_subject[0].check).of)
        return kind, -n_failed, -len(of_subject), natural_key(of_subject[0].sae_id)

    in_order = (tuple(sorted(each, key=lambda r: (RED.index(r.outcome), -excess(r)))) for each in found.values())
    return sorted(in_order, key=worst_first)


def message_lines(result: Result, *, is_short: bool = False) -> tuple[str, ...]:
    """
    The message of a check that is not green: outcome, value and limit, diagnosis, and where its limit comes from.

    The short one leaves out the diagnosis, which the last lines of the run give for the SAE, and the limit's source.
    """
    first, *rest = result.reason.splitlines() or [""]
    if result.outcome == "error":
        return f"ERROR: {result.check} of {result.sae_id}: {first}", *rest
    # WHY the name last: readers of JUnit and pytest's own summary cut the line, and the test's name has it
    lines = [f"{_HEADS[result.outcome]}: {result.check} {first} ({result.sae_id})", *rest]
    if result.diagnosis is not None and not is_short:
        lines.append(f"  {result.diagnosis.sentence}")
    if result.limit is not None:
        source = "" if is_short else f": {result.limit.source}"
        lines.append(f"  limit written in {result.limit.where}{source}")
    return tuple(lines)


def messages(results: Sequence[Result], *, shows_all: bool = False) -> tuple[str, ...]:
    """
    The messages of all red checks, the worst first; checks with the same error share one.

    With *shows_all* all of them, and whole.
    """
    told: dict[tuple[str, ...], list[Result]] = {}
    for result in (r for of_subject in red_subjects(results) for r in of_subject):
        key = ("error", result.reason) if result.outcome == "error" else (result.sae_id, result.check)
        told.setdefault(key, []).append(result)
    shown = list(told.values())[: None if shows_all else N_MESSAGES_MOST]
    lines = [line for same in shown for line in _message_of(same, is_short=not shows_all)]
    n_left = sum(map(len, told.values())) - sum(map(len, shown))
    return (*lines, *([f"and {n_left} more; -v shows them"] if n_left else []))


def _message_of(same: Sequence[Result], *, is_short: bool) -> tuple[str, ...]:
    """The message of one check, or of several with the same error."""
    if len(same) == 1:
        return message_lines(same[0], is_short=is_short)
    first, *rest = same[0].reason.splitlines() or [""]
    sae_ids = list(dict.fromkeys(result.sae_id for result in same))
    of = sae_ids[0] if len(sae_ids) == 1 else f"{len(sae_ids)} SAEs"
    return f"ERROR: {len(same)} checks of {of}: {first}", *rest


def _subject_lines(results: Sequence[Result], n_columns: int, *, is_spacious: bool) -> list[Line]:
    """The red checks of one subject, each with value and limit, and below them the diagnosis."""
    name = wording.text(results[0].sae_id)
    items, reasons = [], dict[str, list[str]]()
    for result in results:
        if result.outcome == "error" or not _is_told_by_value(result):
            reason = result.reason.partition("\n")[0]
            reasons.setdefault(wording.text(reason), []).append(result.check)
        else:
            question = "?" if result.outcome == "inconclusive" else ""
            check = "" if checks.named(result.check).of == "comparison" else f"{result.check} "
            measure = f"{result.judged.measure} " if result.judged is not None and result.other_limits else ""
            items.append(cut(f"{check}{measure}{beside_limit(result)}{question}", n_columns - 2))
    tone: Tone = "warn" if all(r.outcome == "inconclusive" for r in results) else "bad"
    lines = _items_lines(cut(name, n_columns), items, tone, n_columns, n_most=3 if is_spacious else 1)
    for reason, names in reasons.items():
        lines += wrapped(f"{', '.join(names)}: {reason}", n_columns, indent="  ", tone=tone)[: 3 if is_spacious else 1]
    diagnosis = next((r.diagnosis for r in results if r.diagnosis is not None), None)
    if diagnosis is not None and is_spacious:
        lines += wrapped(wording.text(diagnosis.sentence), n_columns, indent="  ")
    elif diagnosis is not None:
        sentence = wording.text(diagnosis.sentence)
        is_long = len(sentence) > n_columns - 2
        lines += [(StyledText(text=f"  {sentence[: n_columns - 3]}…" if is_long else f"  {sentence}"),)]
    return lines


def _is_told_by_value(result: Result) -> bool:
    """Whether value and limit explain the outcome; evidence of a loading error fails a value within its limit."""
    judged, limit = result.judged, result.limit
    if judged is None or limit is None or judged.bound is not None:
        return False
    return result.outcome == "inconclusive" or not limit.allows(judged.value)


def _items_lines(name: str, items: Sequence[str], tone: Tone, n_columns: int, *, n_most: int) -> list[Line]:
    """*name* and as many of *items* as fit into *n_most* lines; the others are counted."""
    rows: list[list[str]] = []
    row = [name]
    for i, item in enumerate(items):
        left = len(items) - i - 1
        reserved = len(f"   +{left} more") if left and len(rows) == n_most - 1 else 0
        if len("   ".join([*row, item])) + (2 if rows else 0) + reserved > n_columns:
            if len(rows) == n_most - 1:
                row.append(f"+{left + 1} more")
                break
            rows.append(row)
            row = []
        row.append(item)
    rows.append(row)
    lines: list[Line] = [
        (StyledText(text=("  " if i else "") + "   ".join(each), tone=tone),) for i, each in enumerate(rows)
    ]
    return lines


def _l0_lines(results: Sequence[Result], n_columns: int) -> list[Line]:
    """The SAEs whose L0 is far from the recorded one, in one line; nothing if there are none."""
    ratios = [(wording.text(result.sae_id), recorded_l0.ratio_beyond_band(result.estimates)) for result in results]
    items = [f"{sae_id} {ratio:.3g}" for sae_id, ratio in ratios if ratio is not None]
    return _items_lines("warning: L0 / recorded L0", items, "warn", n_columns, n_most=1) if items else []


def _accepted_lines(results: Sequence[Result], n_columns: int) -> tuple[Line, ...]:
    """Values that pass only because a limit is wider than the default, a line per reason with the worst of them."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.accepted is not None:
            found.setdefault((result.check, result.accepted), []).append(result)
    lines: list[Line] = []
    for (check, reason), same in found.items():
        worst = max(same, key=excess)
        more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
        text = f"{wording.text(worst.sae_id)}{more}   {check} {beside_limit(worst)}, accepted: {wording.text(reason)}"
        lines += wrapped(text, n_columns)[:3]
    return tuple(lines)


def _next_lines(red: Sequence[Sequence[Result]], page: Path | None, n_columns: int) -> tuple[Line, ...]:
    """`next: open report/index.html   or   pytest ... --sae-explain=ID`; nothing if all is green."""
    if not red:
        return ()
    steps = [f"open {page}"] if page is not None else []
    dear = next((r for of in red for r in of if r.check == checks.CE_LOSS.name and r.outcome == "failed"), None)
    if dear is not None and dear.explanation is None:
        steps.append(f"pytest ... --sae-explain={shlex.quote(dear.sae_id)}")
    tries = (re.search(r"^\s*try:\s+(--sae-.+)", r.reason, re.MULTILINE) for of in red for r in of)
    found = next((found for found in tries if found is not None), None)
    if found is not None:
        steps.append(f"pytest ... {found[1]}")
    if page is None:
        steps.append("pytest ... --sae-out=DIR, for a report")
    line = f"next: {'   or   '.join(steps)}"
    if len(line) <= n_columns:
        return ((StyledText(text=line),),)
    return tuple(
        each for i, step in enumerate(steps) for each in wrapped(f"{'  or' if i else 'next'}: {step}", n_columns)
    )


def _verdict_lines(
    name: str, results: Sequence[Result], verdict: Word, n_columns: int, n_timed: int
) -> tuple[Line, ...]:
    """`demo: FAILED   2 of 6 SAEs and 1 stack   (72 ok, 9 failed)`, on one line if it fits."""
    word, tone = _WORDS[verdict]
    counts = {outcome: sum(r.outcome == outcome for r in results) for outcome in _COUNTS}
    parts = [f"{n} {_COUNTS[outcome]}" for outcome, n in counts.items() if n]
    parts += [f"{n_timed} timed"] if n_timed else []
    told = f"{_subject_counts(results, verdict)}   ({', '.join(parts)})"
    name = wording.text(name)
    if len(f"{name}: {word}   {told}") <= n_columns:
        return ((StyledText(text=f"{name}: {word}", tone=tone), StyledText(text=f"   {told}")),)
    last = (StyledText(text=f"{cut(name, n_columns - len(word) - 2)}: {word}", tone=tone),)
    return (*wrapped(told, n_columns), last)


def _subject_counts(results: Sequence[Result], verdict: Word) -> str:
    """`2 of 6 SAEs and 1 stack`: those that failed, those that are not decided, or all that passed."""
    wanted = {"failed": ("failed", "error"), "not_decided": ("inconclusive",), "passed": ()}[verdict]
    parts = []
    for kind, noun in zip(_KINDS, ("SAE", "stack", "comparison"), strict=True):
        of_kind = [r for r in results if checks.named(r.check).of == kind]
        n_all = len({r.sae_id for r in of_kind})
        n = len({r.sae_id for r in of_kind if not wanted or r.outcome in wanted})
        if n and wanted and kind == "sae":
            parts.append(f"{n} of {n_all} SAE{'s' if n_all > 1 else ''}")
        elif n:
            parts.append(f"{n} {noun}{'s' if n > 1 else ''}")
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + (parts[-1] if parts else "no check")
