"""Shows how far measuring is: a line that is rewritten on a terminal, and a new line every 10 s elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

_PLAIN_EVERY_S = 10.0
_N_BAR_CHARACTERS = 20


class ProgressLine:
    """The progress line. It bypasses pytest's capture, and is silent on xdist workers and under -q."""

    def __init__(
        self, write: Callable[[str, bool], None], *, moves: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        """*write* takes a line and whether it is the last of a pass; *moves*: a line replaces the one before."""
        self._write = write
        self._moves = moves
        self._now = now
        self._kind = ""
        self._started_s = self._last_s = 0.0
        self._batches: list[tuple[float, int]] = []  # (time in s, tokens done) after every batch of this pass

    @classmethod
    def of(cls, config: pytest.Config) -> ProgressLine:
        """The line of this run's terminal; a silent line on xdist workers, under -q and where there is no terminal."""
        reporter = config.pluginmanager.getplugin("terminalreporter")
        capture = config.pluginmanager.getplugin("capturemanager")
        if reporter is None or config.getoption("verbose") < 0 or hasattr(config, "workerinput"):
            return cls(lambda _line, _last: None, moves=False)

        def write(line: str, last: bool) -> None:
            with capture.global_and_fixture_disabled():
                if reporter.isatty:
                    reporter.rewrite(line, erase=True)
                    if last:
                        reporter.ensure_newline()
                else:
                    reporter.ensure_newline()
                    reporter.write_line(line)

        return cls(write, moves=reporter.isatty)

    def tell(self, text: str) -> None:
        """Write *text*, which stays, at once."""
        for line in text.splitlines():
            self._write(line, True)

    def of_kind(self, kind: str) -> Callable[[int, int], None]:
        """A function that shows the progress of one pass; it takes the tokens done and the tokens in all."""
        return partial(self._show, kind)

    def _show(self, kind: str, n_done: int, n_all: int) -> None:
        """Show that *n_done* of *n_all* tokens of a pass *kind* are measured, unless a line was written just before."""
        now = self._now()
        is_first, is_last = kind != self._kind or n_done == 0, n_done >= n_all
        if is_first:
            self._kind, self._started_s, self._last_s = kind, now, now
            self._batches = []
        if n_done > 0:
            self._batches.append((now, n_done))
        if not (is_last or self._moves or now - self._last_s >= _PLAIN_EVERY_S):
            return
        self._last_s = now
        self._write(self._line(n_done, n_all, now - self._started_s), is_last)
        if is_last:
            self._kind = ""

    def _line(self, n_done: int, n_all: int, elapsed_s: float) -> str:
        """The text of the line."""
        share = n_done / max(1, n_all)
        bar = f"[{'=' * round(share * _N_BAR_CHARACTERS):{_N_BAR_CHARACTERS}}] " if self._moves else ""
        head = f"{bar}measuring {self._kind}: {n_done:,} of {n_all:,} tokens"
        if n_done == 0 or elapsed_s <= 0:
            return head
        if n_done >= n_all:
            return f"{head}, {n_done / elapsed_s:,.0f} tokens/s, in {elapsed_s:.0f} s"
        rate = self._rate() or n_done / elapsed_s
        return f"{head}, {rate:,.0f} tokens/s, {(n_all - n_done) / rate:.0f} s left"

    def _rate(self) -> float | None:
        """
        Tokens per second over the later half of the batches so far; None: there is only one batch.

        Later batches predict the time left best: the first one also allocates memory and loads kernels.
        """
        if len(self._batches) < 2:
            return None
        (since_s, n_since), (now_s, n_now) = self._batches[(len(self._batches) - 1) // 2], self._batches[-1]
        return (n_now - n_since) / (now_s - since_s) if n_now > n_since and now_s > since_s else None
