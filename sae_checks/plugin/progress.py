"""How far measuring is: one line that moves on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

_PLAIN_EVERY_S = 10.0
_N_BAR = 20  # characters


class ProgressLine:
    """Writes past pytest's capture; silent on xdist workers and under -q."""

    def __init__(
        self, write: Callable[[str, bool], None], *, moves: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._moves = moves
        self._now = now
        self._kind = ""
        self._started_s = self._last_s = 0.0
        self._told: list[tuple[float, int]] = []  # (s, tokens done) after every batch of this pass

    @classmethod
    def of(cls, config: pytest.Config) -> ProgressLine:
        """The line of this run's terminal, or one that says nothing where there is none."""
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

    def of_kind(self, kind: str) -> Callable[[int, int], None]:
        """What shows the progress of one kind of measuring: called with tokens done and tokens in all."""
        return partial(self._show, kind)

    def _show(self, kind: str, n_done: int, n_all: int) -> None:
        """*n_done* of *n_all* tokens of *kind* are measured."""
        now = self._now()
        is_first, is_last = kind != self._kind or n_done == 0, n_done >= n_all
        if is_first:
            self._kind, self._started_s, self._last_s = kind, now, now
            self._told = []
        if n_done > 0:
            self._told.append((now, n_done))
        if not (is_last or self._moves or now - self._last_s >= _PLAIN_EVERY_S):
            return
        self._last_s = now
        self._write(self._line(n_done, n_all, now - self._started_s), is_last)
        if is_last:
            self._kind = ""

    def _line(self, n_done: int, n_all: int, elapsed_s: float) -> str:
        share = n_done / max(1, n_all)
        bar = f"[{'=' * round(share * _N_BAR):{_N_BAR}}] " if self._moves else ""
        head = f"{bar}measuring {self._kind}: {n_done:,} of {n_all:,} tokens"
        if n_done == 0 or elapsed_s <= 0:
            return head
        if n_done >= n_all:
            return f"{head}, {n_done / elapsed_s:,.0f} tokens/s, in {elapsed_s:.0f} s"
        rate = self._rate() or n_done / elapsed_s
        return f"{head}, {rate:,.0f} tokens/s, {(n_all - n_done) / rate:.0f} s left"

    def _rate(self) -> float | None:
        """
        Tokens per second over the later half of the batches so far, None with the first.

        What is left goes at the pace of now. The first batch also pays for memory and kernels that the others find
        ready, and is never in it once there is a second.
        """
        if len(self._told) < 2:
            return None
        (since_s, n_since), (now_s, n_now) = self._told[(len(self._told) - 1) // 2], self._told[-1]
        return (n_now - n_since) / (now_s - since_s) if n_now > n_since and now_s > since_s else None
