"""The tables and lines at the end of a run, and the message of a check that is not green."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from sae_checks import checks
from sae_checks.judging.position_readings import Curve
from sae_checks.record.results import Result
from sae_checks.report import wording

Tone = Literal["good", "bad", "warn", "plain"]

_OUTCOMES: dict[str, tuple[str, Tone]] = {
    "passed": ("ok", "good"),
    "failed": ("FAILED", "bad"),
    "inconclusive": ("INCONCLUSIVE", "bad"),
    "not_measured": ("not measured", "warn"),
    "reported": ("reported", "plain"),
    "error": ("ERROR", "bad"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StyledText:
    """Text in one tone; plugin/reporting.py gives each tone its colour."""

    text: str
    tone: Tone = "plain"


Line = tuple[StyledText, ...]


def check_table(results: Sequence[Result], *, n_columns: int = 1000) -> tuple[Line, ...]:
    """
    Table of SAEs and checks: the value of each limited measure, and the outcome.

    Checks that do not fit into *n_columns* characters follow in another block below.
    """
    shown_checks = [c for c in checks.CHECKS if any(r.check == c.name for r in results)]
    names = {check.name for check in shown_checks}
    sae_ids = list(dict.fromkeys(result.sae_id for result in results if result.check in names))
    cells = {(result.sae_id, result.check): _cell(result) for result in results}
    columns = [[StyledText(text="SAE"), *(StyledText(text=sae_id) for sae_id in sae_ids)]]
    for check in shown_checks:
        column = [cells.get((sae_id, check.name), StyledText(text="")) for sae_id in sae_ids]
        columns.append([StyledText(text=_column_title(check, results)), *column])
    return tuple(line for block in _blocks(columns, n_columns) for line in _aligned(block))


def octave_table(results: Sequence[Result]) -> tuple[Line, ...]:
    """Table of the CE increase at octaves of positions, a row per SAE; empty if no result has the curve."""
    curves = {r.sae_id: curve for r in results for curve in r.curves if curve.measure == "ce_increase"}
    means = {sae_id: octave_means(curve) for sae_id, curve in curves.items()}
    octaves = sorted({octave for of_sae in means.values() for octave in of_sae})
    if not octaves:
        return ()
    columns = [[StyledText(text="CE increase at positions"), *(StyledText(text=sae_id) for sae_id in means)]]
    for octave in octaves:
        values = (of_sae.get(octave) for of_sae in means.values())
        head = StyledText(text=f"{octave[0]}-{octave[1]}")
        columns.append([head, *(StyledText(text="" if value is None else f"{value:.3g}") for value in values)])
    return _aligned(columns)


def baseline_table(results: Sequence[Result]) -> tuple[Line, ...]:
    """Table of the comparisons with the baseline: before, after, their difference, its interval and its margin."""
    found = [r for r in results if r.check == checks.NO_REGRESSION.name]
    if not found:
        return ()
    columns = [[StyledText(text="against the baseline"), *(StyledText(text=r.sae_id) for r in found)]]
    for measure in ("before", "after", "difference"):
        values = (
            next((e for e in (r.judged, *r.estimates) if e is not None and e.measure == measure), None) for r in found
        )
        columns.append(
            [StyledText(text=measure), *(StyledText(text="" if e is None else f"{e.value:.4g}") for e in values)]
        )
    intervals = ("" if r.judged is None else wording.interval(r.judged.low, r.judged.high) for r in found)
    columns.append([StyledText(text="interval"), *(StyledText(text=interval) for interval in intervals)])
    columns.append([StyledText(text="margin"), *(StyledText(text=_margin(r)) for r in found)])
    columns.append([StyledText(text="verdict"), *map(_verdict_on_difference, found)])
    return _aligned(columns)


def _margin(result: Result) -> str:
    return "" if result.limit is None else f"{abs(result.limit.value):g} {result.limit.unit}"


def _verdict_on_difference(result: Result) -> StyledText:
    """The outcome; of a comparison that passed its own words, such as `worse, but within the margin`."""
    word, tone = _OUTCOMES[result.outcome]
    own_words, _, rest = result.reason.partition(": ")
    return StyledText(text=own_words if result.outcome == "passed" and rest else word, tone=tone)


def octave_means(curve: Curve) -> dict[tuple[int, int], float]:  # a dict: sparse, one entry per octave of the curve
    """Means of *curve* over positions 0-15, 16-31, 32-63, ... by (first, last) position; verdicts do not use them."""
    of_octave: dict[tuple[int, int], list[float]] = {}
    for position, value in zip(curve.position, curve.value, strict=True):
        n_bits = max(4, position.bit_length())
        octave = (0 if n_bits == 4 else 2 ** (n_bits - 1), 2**n_bits - 1)
        of_octave.setdefault(octave, []).append(value)
    return {octave: sum(values) / len(values) for octave, values in of_octave.items()}


def _blocks(columns: Sequence[Sequence[StyledText]], n_columns: int) -> list[list[list[StyledText]]]:
    """Split *columns* into blocks that fit; each starts with the first column and drops the rows it leaves empty."""
    first, *others = columns
    widths = [_width(column) for column in others]
    groups: list[list[Sequence[StyledText]]] = [[]]
    n_used = _width(first)
    for column, width in zip(others, widths, strict=True):
        if groups[-1] and n_used + width > n_columns:
            groups.append([])
            n_used = _width(first)
        groups[-1].append(column)
        n_used += width
    blocks = []
    for group in groups:
        rows = [i for i in range(len(first)) if i == 0 or not group or any(column[i].text for column in group)]
        blocks.append([[column[i] for i in rows] for column in (first, *group)])
    return blocks


def _width(column: Sequence[StyledText]) -> int:
    return max(len(piece.text) for piece in column) + 2


def _aligned(columns: Sequence[Sequence[StyledText]]) -> tuple[Line, ...]:
    widths = [max(len(piece.text) for piece in column) for column in columns]
    return tuple(
        tuple(
            StyledText(text=piece.text.ljust(width) + "  ", tone=piece.tone)
            for piece, width in zip(row, widths, strict=True)
        )
        for row in zip(*columns, strict=True)
    )


def message_lines(result: Result) -> tuple[str, ...]:
    """The message of a check that is not green: outcome, reason, and where its limit is written."""
    word, _ = _OUTCOMES[result.outcome]
    first, *rest = result.reason.splitlines() or [""]
    lines = [f"{word}: {result.check} of {result.sae_id}: {first}", *rest]
    if result.limit is not None and result.outcome != "error":
        lines.append(f"  limit written in {result.limit.where}: {result.limit.source}")
    return tuple(lines)


def outcome_counts(results: Sequence[Result]) -> str:
    """`18 passed, 2 failed` over all checks of all SAEs."""
    counts = {outcome: sum(r.outcome == outcome for r in results) for outcome in _OUTCOMES}
    return ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in counts.items() if n)


def early_stops(results: Sequence[Result]) -> str:
    """How many sequential verdicts needed less than the whole corpus, and how much; empty if there is none."""
    used = [r.decision.n_used / r.decision.n_most for r in results if r.decision is not None and r.decision.n_most]
    if not used:
        return ""
    n_early = sum(share < 1 for share in used)
    return (
        f"{n_early} of {len(used)} sequential verdicts came early, half of all within {median(used):.0%} of the "
        "sequences, passages or queries that there are"
    )


def closing_line(name: str, results: Sequence[Result], *, is_green: bool) -> str:
    """`demo: FAILED`: the release *name* and the outcome of its worst check."""
    if is_green:
        return f"{name}: PASSED"
    worst = next((o for o in ("failed", "error", "inconclusive") if any(r.outcome == o for r in results)), "not_judged")
    return f"{name}: {worst.upper().replace('_', ' ')}"


def _column_title(check: checks.Check, results: Sequence[Result]) -> str:
    measures = {r.limit.measure for r in results if r.check == check.name and r.limit is not None}
    return f"{check.title} ({', '.join(sorted(measures))})" if measures else check.title


def _cell(result: Result) -> StyledText:
    word, tone = _OUTCOMES[result.outcome]
    estimate = result.judged
    return StyledText(text=word if estimate is None else f"{estimate.value:.4g} {word}", tone=tone)
