"""Numbers, names and outcomes in words: the same in HTML and Markdown."""

from __future__ import annotations

import re

from markupsafe import Markup

from sae_checks import checks, errors
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.thresholds import Limit
from sae_checks.record.record import Result

OUTCOMES = {
    "passed": ("✓", "passed"),
    "failed": ("✕", "failed"),
    "inconclusive": ("?", "inconclusive"),
    "error": ("!", "error"),
    "reported": ("○", "reported"),
    "not_measured": ("–", "not measured"),  # noqa: RUF001 -- a dash, not a hyphen
}
"""By outcome its sign and its word: nothing is told by colour alone."""

VERDICTS = {
    "passed": ("✓", "Within its limits"),
    "failed": ("✕", "Not within its limits"),
    "undecided": ("?", "Not decided"),
    "partial": ("◐", "Within the limits that were checked"),
}
"""The same of the whole run."""

N_CHARACTERS_MOST = 2000
"""of one name or text: strangers wrote them."""


def number(value: float) -> str:
    """Three significant digits, whole from a thousand to a million, with a minus and not a hyphen."""
    digits = f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
    return digits.replace("-", "−")  # noqa: RUF001 -- the minus sign is meant


def interval(low: float, high: float) -> str:
    """Both ends in brackets."""
    return f"[{number(low)}, {number(high)}]"


def limit(of: Limit | None) -> str:
    """`≤ 0.3`, `≥ 0.9` or `0.5 to 2`; nothing where there is none."""
    if of is None:
        return ""
    if of.floor is not None:
        return f"{number(of.floor)} to {number(of.value)}"
    return f"{'≤' if of.kind == 'max' else '≥'} {number(of.value)}"


def text(value: str) -> str:
    """*value* as it may be shown: on one line, what cannot be printed as its escape, and not endless."""
    if len(value) <= N_CHARACTERS_MOST and value.isprintable():  # nearly always, and a page has a hundred thousand
        return value
    return errors.shown(value, n_most=N_CHARACTERS_MOST)


def breakable(value: str) -> Markup:
    """A name that may go on in the next line behind a dot, an underscore or a slash, and only there."""
    pieces = re.split(r"(?<=[._/])(?=[^._/])", text(value))
    return Markup("<wbr>").join(pieces)


def token(value: str) -> str:
    """A token in its running text: line ends as their sign."""
    return text(value.replace("\r\n", "\n").replace("\n", "↵").replace("\t", "→"))


def limited(result: Result) -> Estimate | None:
    """The measure that *result* is judged by; of what has no limit the last of its check."""
    name = checks.named(result.check).measures[-1].name if result.limit is None else result.limit.measure
    return next((estimate for estimate in result.estimates if estimate.measure == name), None)


def unit(name: str) -> str:
    """As it stands behind a number: a plain fraction needs none."""
    return "" if name in ("fraction", "that of the measure") else name


def seconds(wall_s: float) -> str:
    """`41 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(wall_s)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"
