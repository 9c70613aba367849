"""What the plugin keeps in pytest's stash: typed, one noun, no module globals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from string import printable
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest

from sae_checks.errors import HubError
from sae_checks.run.settle import Cell, Request

if TYPE_CHECKING:
    from sae_checks.record.results import Result
    from sae_checks.run.judge import Judge

GATE = Path(__file__).parent.parent / "gate"
GATE_ID = "sae_checks/gate/"
"""How node ids of the gate begin, wherever the package is installed."""


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What has happened so far; the controller's copy makes the record."""

    selected: set[Cell] = field(default_factory=set)
    """checks that were collected and not deselected."""
    results: dict[Cell, Result] = field(default_factory=dict)
    judge: Judge | None = None


REQUEST = pytest.StashKey[Request]()
HUB_PROBLEM = pytest.StashKey[HubError]()
"""why nothing could be settled, in place of REQUEST."""
LEDGER = pytest.StashKey[Ledger]()
RESULT = pytest.StashKey["Result"]()


def param_id(sae_id: str) -> str:
    """*sae_id* as node ids hold it: printable ASCII that pytest leaves alone, and that `cell_of` reads back."""
    return quote(sae_id, safe="".join(c for c in printable if c.isprintable() and c not in "%\\"))


def cell_of(nodeid: str) -> Cell | None:
    """The SAE and check that a node id of the gate names: `…::test_ce_loss[blocks.2…]`; None for all others."""
    place, _, name = nodeid.partition("[")  # first the bracket: an SAE's id may hold "::"
    file, _, function = place.partition("::test_")
    if not file.startswith(GATE_ID) or not name.endswith("]"):
        return None
    return unquote(name[:-1]), function
