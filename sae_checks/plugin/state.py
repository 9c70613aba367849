"""What the plugin keeps in pytest's stash: typed, one noun, no module globals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from string import printable
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest

from sae_checks import checks
from sae_checks.errors import HubError
from sae_checks.judging.thresholds import Limit
from sae_checks.plan.golden_prompts import Golden
from sae_checks.plan.plan import Plan

if TYPE_CHECKING:
    from sae_checks.comparing.baseline import Baseline
    from sae_checks.measuring.local import LocalExecutor
    from sae_checks.record.record import Result

GATE = Path(__file__).parent.parent / "gate"
GATE_ID = "sae_checks/gate/"
"""How node ids of the gate begin, wherever the package is installed."""

Cell = tuple[str, str]
"""(id of an SAE or a stack, check name); a comparison of that with the baseline is (SAE-CHECK, "no_regression")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked and found good; the same in every process of a run."""

    plan: Plan
    limits: dict[Cell, Limit | None]
    """of every check that there is, of every SAE and stack; None: it is reported, and no limit is written for it."""
    golden: dict[str, Golden]
    """by SAE id."""
    baseline: Baseline | None = None
    """the earlier run that `no_regression` compares with."""

    @property
    def own(self) -> frozenset[Cell]:
        """The cells that this run judges: all, or those of its shard."""
        subjects = set(self.plan.subjects_of_shard)
        return frozenset(cell for cell in self.limits if compared(cell)[0] in subjects)


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What has happened so far; the controller's copy makes the record."""

    selected: set[Cell] = field(default_factory=set)
    """checks that were collected and not deselected."""
    results: dict[Cell, Result] = field(default_factory=dict)
    executor: LocalExecutor | None = None


ASKED = pytest.StashKey[Asked]()
HUB_PROBLEM = pytest.StashKey[HubError]()
"""why nothing could be settled, in place of ASKED."""
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


def compared(cell: Cell) -> Cell:
    """The cell whose measure *cell* asks for: of a comparison the one that is compared, else itself."""
    if cell[1] != checks.NO_REGRESSION.name:
        return cell
    subject, _, check = cell[0].rpartition("-")  # an id may hold one, the name of a check does not
    return subject, check
