"""How much memory is free where the SAEs will lie."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

SHARE = 0.5
"""of what is free, for weights of SAEs: the other half is for activations, logits and what else runs here."""
_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use: it sees the memory of the whole machine."""


def for_saes(asked_gib: float | None, device: torch.device) -> int:
    """
    Bytes that weights of SAEs may take: *asked_gib*, else this process's part of a share of what is free on *device*.

    Ask when the model is loaded. Workers of pytest-xdist divide among them what is theirs all.
    """
    if asked_gib is not None:
        return int(asked_gib * 2**30)
    return int(SHARE * free(device)) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free(device: torch.device) -> int:
    """Bytes free on *device*: of an accelerator's own memory, else of the machine's or the container's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    available: int = psutil.virtual_memory().available
    in_container = _of_container(_CGROUP)
    return available if in_container is None else min(available, in_container)


def _of_container(cgroup: Path) -> int | None:
    """What the container has left; None: it is none, or has no limit. Cached files count as free: they give way."""
    try:
        most = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return None if most == "max" else max(0, int(most) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
