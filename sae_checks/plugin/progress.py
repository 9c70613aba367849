"""Shows how far a run is: a line that is rewritten on a terminal, and a new line every 10 s elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

_PLAIN_EVERY_S = 10.0
_N_BAR_CHARACTERS = 10


class ProgressLine:
    """The progress line. It bypasses pytest's capture, and is silent on xdist workers and under -q."""

    def __init__(
        self,
        write: Callable[[str, bool], None],
        *,
        moves: bool,
        planned: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Make a line that shows nothing yet.

        Args:
            write: takes a line and whether it is the last of a pass; one that ends with a newline stays.
            moves: a line replaces the one before.
            planned: the share of the run's work that each kind of pass is thought to be.
            now: seconds of a clock.
        """
        self._write = write
        self._moves = moves
        self._now = now
        self._planned = dict(planned or {})
        self._kind = ""
        self._started_s, self._last_s = 0.0, -_PLAIN_EVERY_S
        self._batches: list[tuple[float, int]] = []  # (time in s, tokens done) after every batch of this pass
        self._finished_s: dict[str, float] = {}  # seconds that the finished passes of each kind took

    @classmethod
    def of(cls, config: pytest.Config, planned: Mapping[str, float]) -> ProgressLine:
        """The line of this run's terminal; a silent line on xdist workers, under -q and where there is no terminal."""
        reporter = config.pluginmanager.getplugin("terminalreporter")
        capture = config.pluginmanager.getplugin("capturemanager")
        if reporter is None or config.getoption("verbose") < 0 or hasattr(config, "workerinput"):
            return cls(lambda _line, _last: None, moves=False)

        def write(line: str, last: bool) -> None:
            with capture.global_and_fixture_disabled():
                if reporter.isatty and not line.endswith("\n"):
                    _write_below(config.get_terminal_writer(), "" if last else line)
                else:
                    reporter.ensure_newline()
                    reporter.write_line(line.removesuffix("\n"))
                reporter.flush()

        return cls(write, moves=reporter.isatty, planned=planned)

    def announce(self, step: str) -> None:
        """Show a *step* that has no count, such as `loading gpt2`."""
        self._last_s = self._now()
        self._write(step, False)

    def tell(self, text: str) -> None:
        """Write *text*, which stays, at once."""
        for line in text.splitlines():
            self._write(f"{line}\n", False)

    def of_kind(self, kind: str) -> Callable[[int, int], None]:
        """A function that shows the progress of one pass; it takes the tokens done and the tokens in all."""
        return partial(self._show, kind)

    def _show(self, kind: str, n_done: int, n_all: int) -> None:
        """Show that *n_done* of *n_all* tokens of a pass *kind* are measured, unless a line was written just before."""
        now = self._now()
        is_first, is_last = kind != self._kind or n_done == 0, n_done >= n_all
        if is_first:
            self._kind, self._started_s = kind, now
            self._batches = []
        if n_done > 0:
            self._batches.append((now, n_done))
        if self._moves or now - self._last_s >= _PLAIN_EVERY_S:
            self._last_s = now
            self._write(self._line(n_done, n_all), is_last)
        if is_last:
            self._finished_s[kind] = self._finished_s.get(kind, 0.0) + now - self._started_s
            self._kind = ""

    def _line(self, n_done: int, n_all: int) -> str:
        """The text of the line: this pass, then the run."""
        elapsed_s = self._now() - self._started_s
        line = f"{self._kind}: {n_done:,} of {n_all:,} tokens"
        rate = self._rate() or (n_done / elapsed_s if elapsed_s > 0 else 0.0)
        left_s = (n_all - n_done) / rate if rate > 0 else None
        if left_s is not None and left_s > 0:
            line += f", {duration(left_s)} left"
        share = n_done / max(1, n_all)
        of_run = self._share_of_run(share)
        if of_run is None:
            return f"measuring {line}"
        line += f"; run {of_run:.0%}"
        spent_s = sum(self._finished_s.get(kind, 0.0) for kind in self._planned) + elapsed_s
        if left_s is not None and of_run > 0:
            all_left_s = max(left_s, spent_s * (1 - of_run) / of_run)
            line += f", about {duration(all_left_s)} left" if all_left_s >= 1 else ""
        n_filled = round(of_run * _N_BAR_CHARACTERS)
        return f"[{'=' * n_filled:{_N_BAR_CHARACTERS}}] {line}" if self._moves else f"measuring {line}"

    def _share_of_run(self, share: float) -> float | None:
        """The share of the run's work that is done, with *share* of this pass; None: the pass was not planned."""
        if self._kind not in self._planned:
            return None
        done = sum(work for kind, work in self._planned.items() if kind in self._finished_s and kind != self._kind)
        own = self._planned[self._kind] * (1.0 if self._kind in self._finished_s else share)
        return (done + own) / (sum(self._planned.values()) or 1.0)

    def _rate(self) -> float | None:
        """
        Tokens per second over the later half of the batches so far; None: there is only one batch.

        Later batches predict the time left best: the first one also allocates memory and loads kernels.
        """
        if len(self._batches) < 2:
            return None
        (since_s, n_since), (now_s, n_now) = self._batches[(len(self._batches) - 1) // 2], self._batches[-1]
        return (n_now - n_since) / (now_s - since_s) if n_now > n_since and now_s > since_s else None


def _write_below(writer: Any, line: str) -> None:  # Any: pytest's TerminalWriter is private
    """Show *line* below the one on which pytest prints its dots, cut to the width; the cursor stays where it is."""
    n_used = writer.width_of_current_line
    column = f"\x1b[{n_used}C" if n_used else ""
    text = f"\n{line[: writer.fullwidth - 1]}\x1b[K\x1b[A\r{column}"  # one less: some wrap in their last column
    writer._file.write(text)  # noqa: SLF001 -- what it writes itself it takes for a part of the line of dots


def duration(seconds: float) -> str:
    """`41 s`, `3 min` or `2 h 5 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
