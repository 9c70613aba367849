"""What the plugin keeps in pytest's stash: typed, one noun, no module globals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sae_checks.plan import Plan
from sae_checks.thresholds import Limit

if TYPE_CHECKING:
    from sae_checks.executors.local import LocalExecutor
    from sae_checks.record import Result

GATE = Path(__file__).parent.parent / "gate"

Cell = tuple[str, str]
"""(SAE id, check name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked and found good; the same in every process of a run."""

    plan: Plan
    limits: dict[Cell, Limit]


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What has happened so far; the controller's copy makes the record."""

    selected: set[Cell] = field(default_factory=set)
    """checks that were collected and not deselected."""
    results: dict[Cell, Result] = field(default_factory=dict)
    executor: LocalExecutor | None = None


ASKED = pytest.StashKey[Asked]()
LEDGER = pytest.StashKey[Ledger]()
RESULT = pytest.StashKey["Result"]()


def cell_of(nodeid: str) -> Cell | None:
    """The SAE and check that a node id of the gate names: `…::test_ce_loss[blocks.2…]`."""
    name = nodeid.rpartition("::")[2]
    function, bracket, sae_id = name.partition("[")
    if not bracket or not function.startswith("test_") or not sae_id.endswith("]"):
        return None
    return sae_id[:-1], function.removeprefix("test_")
