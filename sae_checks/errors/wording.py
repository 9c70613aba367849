"""The form of a message: what is wrong, what was expected (and where that is written), what was got, what to try."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def shown(text: object, *, n_most: int = 120) -> str:
    """
    *text* fit for a terminal, JUnit and JSON: one line, printable, at most *n_most* characters.

    Names come from files that strangers wrote (cfg.json, folder names), so control characters are escaped.
    """
    printable = _escaped(str(text))
    return printable if len(printable) <= n_most else printable[: n_most - 3] + "..."


def _escaped(text: str) -> str:
    """*text* with every character that is not printable written as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def message(what: str, *, expected: str, got: str, attempt: str = "") -> str:
    """The parts of a message, one line each. *attempt* begins with something one can type; empty: there is nothing."""
    what, expected, got = (_escaped(part) or "nothing" for part in (what, expected, got))
    lines = f"{what}\n  expected: {expected}\n  got:      {got}"
    return f"{lines}\n  try:      {_escaped(attempt)}" if attempt else lines


def listed(names: Sequence[str], *, n_most: int = 8) -> str:
    """*names* with commas between them; of more than *n_most* the first and how many more there are."""
    head = ", ".join(shown(name) for name in names[:n_most]) or "nothing"
    return head if len(names) <= n_most else f"{head} and {len(names) - n_most} more"


def typed(flag: str, value: str) -> str:
    """*flag* with *value* as one types it in a shell."""
    return f"{flag}={shlex.quote(shown(value))}"
