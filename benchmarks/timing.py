"""Seconds, memory, and how fast this machine multiplies now."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Found = TypeVar("Found")


def now() -> float:
    """Seconds: of this process's own work where it has one thread, for a neighbour's is not in it; else of a clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(run: Callable[[], Found]) -> tuple[Found, float, float]:
    """What *run* finds, its seconds, and the most memory held meanwhile beyond what was held before, in MiB."""
    before, most, done = _rss(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], _rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = now()
    try:
        found = run()
    finally:
        elapsed = now() - start
        done.set()
        watcher.join()
    return found, elapsed, max(0.0, most[0] - before)


def _rss() -> float:
    """MiB resident now; where /proc does not tell, the most so far."""
    try:
        n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return n_pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def matmul_rate(dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few large products, into memory that is there: as fast as this machine multiplies now."""
    best = 0.0
    for n_rows, n_inner, n_columns in ((1024, 768, 3072), (512, 768, 24576), (2048, 2048, 2048)):
        a, b = (torch.randn(shape).to(dtype) for shape in ((n_rows, n_inner), (n_inner, n_columns)))
        out = torch.empty(n_rows, n_columns, dtype=dtype)
        for _ in range(4):
            start = now()
            torch.mm(a, b, out=out)
            best = max(best, 2 * n_rows * n_inner * n_columns / (now() - start))
    return best
