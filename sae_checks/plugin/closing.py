"""Prints the end of a run, below what pytest itself prints: tables, messages, and the verdict as the last lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from sae_checks.plugin.state import GATE_ID

if TYPE_CHECKING:
    from sae_checks.report.terminal_tables import Line

_MARKUP: dict[str, dict[str, bool]] = {
    "good": {"green": True, "bold": True},
    "bad": {"red": True, "bold": True},
    "warn": {"yellow": True, "bold": True},
    "plain": {},
}
_ASCII = str.maketrans("✓✕○–−≤≥…◐·", "+xo--<>~~.")  # noqa: RUF001 -- a dash and the minus sign
_REPORTCHARS_DEFAULT = "fE"


class Hidden:
    """
    The red checks of the gate, which pytest counts but does not list: the last lines of the run tell them shorter.

    An error that is no verdict, with its traceback, stays in pytest's list. `-rf` and the like list all at the end.
    """

    def __init__(self) -> None:
        self._stats: dict[str, list[Any]] = {}
        self._whole: dict[str, list[Any]] = {}

    def hide(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Take the red checks of the gate out of pytest's lists."""
        self._stats = terminalreporter.stats
        for category in ("failed", "error"):
            if category in self._stats:
                self._whole[category] = self._stats[category]
                self._stats[category] = [report for report in self._whole[category] if not _is_told_by_us(report)]

    def restore(self) -> None:
        """Give pytest its lists back."""
        self._stats.update(self._whole)

    def pytest_terminal_summary(self, config: pytest.Config) -> None:
        """Give them back before pytest's short summary, if the user has asked for one."""
        if config.option.reportchars != _REPORTCHARS_DEFAULT:
            self.restore()


def _is_told_by_us(report: Any) -> bool:  # Any: a collector's or a test's report
    """Whether the failure is a verdict or an error with a message of ours: both have no traceback."""
    has_none = getattr(getattr(report.longrepr, "reprtraceback", None), "style", "") == "value"  # pytrace=False
    return str(report.nodeid).startswith(GATE_ID) and has_none


def n_timed(terminalreporter: pytest.TerminalReporter) -> int:
    """The number of SAEs whose speed was measured; pytest counts them among what passed."""
    return sum(
        report.nodeid.startswith(f"{GATE_ID}test_speed.py") for report in terminalreporter.stats.get("passed", ())
    )


def write(terminalreporter: pytest.TerminalReporter, lines: Iterable[Line]) -> None:
    """Write *lines* with their colours, in signs that the terminal's encoding has."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    for line in lines:
        for piece in line:
            terminalreporter.write(_encodable(piece.text, encoding), **_MARKUP[piece.tone])
        terminalreporter.line("")


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII)
    return text


def write_red(terminalreporter: pytest.TerminalReporter, texts: Sequence[str]) -> None:
    """Write *texts* in red, a line each."""
    for text in texts:
        terminalreporter.line(text, red=True)
