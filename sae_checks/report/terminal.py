"""The tables at the end of a run: per SAE and check, and per SAE and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from sae_checks import checks
from sae_checks.judging.position_readings import Curve
from sae_checks.record.record import Result

Tone = Literal["good", "bad", "warn", "plain"]

_WORDS: dict[str, tuple[str, Tone]] = {
    "passed": ("ok", "good"),
    "failed": ("FAILED", "bad"),
    "inconclusive": ("INCONCLUSIVE", "bad"),
    "not_measured": ("not measured", "warn"),
    "reported": ("reported", "plain"),
    "error": ("ERROR", "bad"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A run of text in one tone."""

    text: str
    tone: Tone = "plain"


Line = tuple[Piece, ...]


def table(results: Sequence[Result], *, n_columns: int = 1000) -> tuple[Line, ...]:
    """
    The limited measure's value and the outcome of every check, aligned.

    Where one block would be wider than *n_columns* characters the rest of the checks follow in a block below.
    """
    shown_checks = [c for c in checks.CHECKS if any(r.check == c.name for r in results)]
    names = {check.name for check in shown_checks}
    sae_ids = list(dict.fromkeys(result.sae_id for result in results if result.check in names))
    cells = {(result.sae_id, result.check): _cell(result) for result in results}
    columns = [[Piece(text="SAE"), *(Piece(text=sae_id) for sae_id in sae_ids)]]
    for check in shown_checks:
        column = [cells.get((sae_id, check.name), Piece(text="")) for sae_id in sae_ids]
        columns.append([Piece(text=_head(check, results)), *column])
    return tuple(line for block in _blocks(columns, n_columns) for line in _aligned(block))


def by_position(results: Sequence[Result]) -> tuple[Line, ...]:
    """The increase over octaves of positions, a row per SAE that has its curve; nothing if none has."""
    curves = {r.sae_id: curve for r in results for curve in r.curves if curve.measure == "ce_increase"}
    smooth = {sae_id: smoothed(curve) for sae_id, curve in curves.items()}
    octaves = sorted({octave for of_sae in smooth.values() for octave in of_sae})
    if not octaves:
        return ()
    columns = [[Piece(text="CE increase at positions"), *(Piece(text=sae_id) for sae_id in smooth)]]
    for octave in octaves:
        values = (of_sae.get(octave) for of_sae in smooth.values())
        head = Piece(text=f"{octave[0]}-{octave[1]}")
        columns.append([head, *(Piece(text="" if value is None else f"{value:.3g}") for value in values)])
    return _aligned(columns)


def compared(results: Sequence[Result]) -> tuple[Line, ...]:
    """Before, after and their difference with its interval, a row per check that was compared with the baseline."""
    found = [r for r in results if r.check == checks.NO_REGRESSION.name]
    if not found:
        return ()
    columns = [[Piece(text="against the baseline"), *(Piece(text=r.sae_id) for r in found)]]
    for measure in ("before", "after", "difference"):
        values = (next((e for e in r.estimates if e.measure == measure), None) for r in found)
        columns.append([Piece(text=measure), *(Piece(text="" if e is None else f"{e.value:.4g}") for e in values)])
    intervals = (next((f"[{e.low:.4g}, {e.high:.4g}]" for e in r.estimates if e.measure == measure), "") for r in found)
    columns.append([Piece(text="95 %"), *(Piece(text=interval) for interval in intervals)])
    columns.append([Piece(text="margin"), *(Piece(text=_margin(r)) for r in found)])
    columns.append([Piece(text="verdict"), *map(_verdict_on_difference, found)])
    return _aligned(columns)


def _margin(result: Result) -> str:
    return "" if result.limit is None else f"{abs(result.limit.value):g} {result.limit.unit}"


def _verdict_on_difference(result: Result) -> Piece:
    """What a passed comparison says of itself: that it is worse, but within the margin, is no plain ok."""
    word, tone = _WORDS[result.outcome]
    said, _, rest = result.reason.partition(": ")
    return Piece(text=said if result.outcome == "passed" and rest else word, tone=tone)


def smoothed(curve: Curve) -> dict[tuple[int, int], float]:  # a dict: sparse, one entry per octave that has a position
    """Means over positions 0-15, 16-31, 32-63, ...: for reading; judged and recorded are the points themselves."""
    of_octave: dict[tuple[int, int], list[float]] = {}
    for position, value in zip(curve.position, curve.value, strict=True):
        n_bits = max(4, position.bit_length())
        octave = (0 if n_bits == 4 else 2 ** (n_bits - 1), 2**n_bits - 1)
        of_octave.setdefault(octave, []).append(value)
    return {octave: sum(values) / len(values) for octave, values in of_octave.items()}


def _blocks(columns: Sequence[Sequence[Piece]], n_columns: int) -> list[list[list[Piece]]]:
    """*columns* in groups that fit, each behind the first of them; rows that are empty in a group are left out."""
    first, *others = columns
    widths = [_width(column) for column in others]
    groups: list[list[Sequence[Piece]]] = [[]]
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


def _width(column: Sequence[Piece]) -> int:
    return max(len(piece.text) for piece in column) + 2


def _aligned(columns: Sequence[Sequence[Piece]]) -> tuple[Line, ...]:
    widths = [max(len(piece.text) for piece in column) for column in columns]
    return tuple(
        tuple(
            Piece(text=piece.text.ljust(width) + "  ", tone=piece.tone)
            for piece, width in zip(row, widths, strict=True)
        )
        for row in zip(*columns, strict=True)
    )


def complaint(result: Result) -> tuple[str, ...]:
    """What there is to say of one check that is not green: value, interval, limit, and where that is written."""
    word, _ = _WORDS[result.outcome]
    first, *rest = result.reason.splitlines() or [""]
    lines = [f"{word}: {result.check} of {result.sae_id}: {first}", *rest]
    if result.limit is not None and result.outcome != "error":
        lines.append(f"  limit written in {result.limit.where}: {result.limit.source}")
    return tuple(lines)


def tally(results: Sequence[Result]) -> str:
    """`18 passed, 2 failed` over all checks of all SAEs."""
    counts = {outcome: sum(r.outcome == outcome for r in results) for outcome in _WORDS}
    return ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in counts.items() if n)


def early(results: Sequence[Result]) -> str:
    """How many verdicts came before all that there is had been looked at, and how early; empty where none could."""
    used = [r.decision.n_used / r.decision.n_most for r in results if r.decision is not None and r.decision.n_most]
    if not used:
        return ""
    n_early = sum(share < 1 for share in used)
    return (
        f"{n_early} of {len(used)} sequential verdicts came early, half of all within {median(used):.0%} of the "
        "sequences, passages or queries that there are"
    )


def overall(name: str, results: Sequence[Result], *, is_green: bool) -> str:
    """`demo: FAILED (12 failed)`: what the run says of the release, by its worst check."""
    if is_green:
        return f"{name}: PASSED"
    worst = next((o for o in ("failed", "error", "inconclusive") if any(r.outcome == o for r in results)), "not_judged")
    return f"{name}: {worst.upper().replace('_', ' ')}"


def _head(check: checks.Check, results: Sequence[Result]) -> str:
    measures = {r.limit.measure for r in results if r.check == check.name and r.limit is not None}
    return f"{check.title} ({', '.join(sorted(measures))})" if measures else check.title


def _cell(result: Result) -> Piece:
    word, tone = _WORDS[result.outcome]
    # of what is only reported, the last measure of its check: the others are there to make it
    limited = checks.named(result.check).measures[-1].name if result.limit is None else result.limit.measure
    value = next((f"{e.value:.4g} " for e in result.estimates if e.measure == limited), "")
    return Piece(text=f"{value}{word}", tone=tone)
