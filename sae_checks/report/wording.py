"""Numbers, names and outcomes as text, the same in terminal, HTML and Markdown."""

from __future__ import annotations

import math
import re

from markupsafe import Markup

from sae_checks import errors
from sae_checks.judging.judged import JudgedValue
from sae_checks.judging.limits import Limit

OUTCOMES = {
    "passed": ("✓", "passed"),
    "failed": ("✕", "failed"),
    "inconclusive": ("?", "inconclusive"),
    "error": ("!", "error"),
    "reported": ("○", "reported"),
    "not_measured": ("–", "not measured"),  # noqa: RUF001 -- a dash, not a hyphen
}
"""Sign and word of each outcome. WHY a sign: colour alone does not reach every reader."""

VERDICTS = {
    "passed": ("✓", "PASSED"),
    "failed": ("✕", "FAILED"),
    "not_decided": ("?", "NOT DECIDED"),
}
"""Sign and words of the verdict on a run."""

N_CHARACTERS_MOST = 2000
"""of one name or text. WHY: whoever publishes a release chooses them."""


def number(value: float) -> str:
    """*value* to three significant digits, whole from 1,000 to 1,000,000, with a minus sign instead of a hyphen."""
    digits = f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
    return digits.replace("-", "−")  # noqa: RUF001 -- the minus sign is meant


def interval(low: float | None, high: float | None) -> str:
    """`[0.1, 0.2]`, with an infinity where there is no bound; empty if there is none on both sides."""
    if low is None and high is None:
        return ""
    return f"[{'−∞' if low is None else number(low)}, {'∞' if high is None else number(high)}]"  # noqa: RUF001 -- the minus sign is meant


def limit(of: Limit | None) -> str:
    """`≤ 0.3`, `≥ 0.9` or `0.5 to 2`; empty without a limit."""
    if of is None:
        return ""
    if of.floor is not None:
        return f"{number(of.floor)} to {number(of.value)}"
    return f"{'≤' if of.kind == 'max' else '≥'} {number(of.value)}"


def excess(value: float, of: Limit | None) -> float:
    """By how much *value* is beyond its limit, as a share of the limit; negative: it is within."""
    if of is None:
        return -math.inf
    sides = ((value - side.value) * (1 if side.kind == "max" else -1) / (abs(side.value) or 1.0) for side in of.sides)
    return max(sides)


def bounds(judged: JudgedValue) -> tuple[float, float, float]:
    """Value, lower and upper end of *judged*, to be drawn; an end without a bound is at the value."""
    value, low, high = judged.value, judged.low, judged.high
    return value, value if low is None else low, value if high is None else high


def text(value: str) -> str:
    """*value* on one line, cut to N_CHARACTERS_MOST, with escapes for what cannot be printed."""
    if len(value) <= N_CHARACTERS_MOST and value.isprintable():  # WHY: the fast path; a page has 100,000 texts
        return value
    return errors.shown(value, n_most=N_CHARACTERS_MOST)


def breakable(value: str) -> Markup:
    """*value*, a name, with places for a line break after its dots, underscores and slashes."""
    pieces = re.split(r"(?<=[._/])(?=[^._/])", text(value))
    return Markup("<wbr>").join(pieces)


def token(value: str) -> str:
    """*value*, a token, with ↵ for a line end and → for a tab."""
    return text(value.replace("\r\n", "\n").replace("\n", "↵").replace("\t", "→"))


def unit(name: str) -> str:
    """The unit *name* as written after a number; empty for a fraction."""
    return "" if name in ("fraction", "that of the measure") else name


def seconds(wall_s: float) -> str:
    """`41 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(wall_s)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"
