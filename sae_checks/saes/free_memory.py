"""Free memory on the device that holds SAE weights."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

_SHARE_FOR_SAES = 0.5
"""share of free memory for SAE weights; the rest is for activations, logits and other programs."""
_CGROUP = Path("/sys/fs/cgroup")
"""Linux's limits of a container, in which psutil reports the memory of the whole machine."""


def bytes_for_saes(asked_gib: float | None, device: torch.device) -> int:
    """
    Bytes that SAE weights may take: *asked_gib*, else half of the free memory on *device*.

    Call it after the model is loaded. Workers of pytest-xdist divide the free memory among themselves.
    """
    if asked_gib is not None:
        return int(asked_gib * 2**30)
    return int(_SHARE_FOR_SAES * free_bytes(device)) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free_bytes(device: torch.device) -> int:
    """Free bytes of an accelerator's memory; on a CPU, of the machine's or the container's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    available: int = psutil.virtual_memory().available
    in_container = _free_in_container(_CGROUP)
    return available if in_container is None else min(available, in_container)


def _free_in_container(cgroup: Path) -> int | None:
    """Free bytes of the container, cached files included since they are evicted; None: no container, or no limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return None if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
