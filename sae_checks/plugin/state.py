"""The keys under which the plugin stores its state in pytest's stash, and the node ids of the gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from string import printable
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest

from sae_checks.run.settle import Cell, Request

if TYPE_CHECKING:
    from sae_checks.record.results import Result
    from sae_checks.run.judge import Judge

GATE = Path(__file__).parent.parent / "gate"
GATE_ID = "sae_checks/gate/"
"""beginning of every node id of the gate, wherever the package is installed."""


@dataclass(slots=True, kw_only=True)
class RunState:
    """What a run has selected and judged so far. Under xdist the record is made from the controller's copy."""

    selected: set[Cell] = field(default_factory=set)
    """checks that were collected and not deselected."""
    results: dict[Cell, Result] = field(default_factory=dict)
    judge: Judge | None = None
    """made by the first check that is measured in this process."""


REQUEST = pytest.StashKey[Request]()
"""in the configuration: what the run judges."""
RUN_STATE = pytest.StashKey[RunState]()
"""in the configuration, beside REQUEST."""
RESULT = pytest.StashKey["Result"]()
"""in a test item: the result of its check."""


def param_id(sae_id: str) -> str:
    """*sae_id* in printable ASCII, which pytest puts into a node id unchanged; `cell_in_nodeid` reads it back."""
    return quote(sae_id, safe="".join(c for c in printable if c.isprintable() and c not in "%\\"))


def cell_in_nodeid(nodeid: str) -> Cell | None:
    """
    The SAE or stack and the check that a node id of the gate names; None: the node id is not of the gate.

    An example is `sae_checks/gate/test_ce_loss.py::test_ce_loss[blocks.2.hook_resid_pre]`.
    """
    path_and_function, _, parameter = nodeid.partition("[")  # TRAP: an SAE id may contain "::", so the bracket first
    file, _, check = path_and_function.partition("::test_")
    if not file.startswith(GATE_ID) or not parameter.endswith("]"):
        return None
    return unquote(parameter[:-1]), check
