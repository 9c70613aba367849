"""
pytest-xdist: one plan for all workers, and each SAE on one worker.

A worker measures together all SAEs that fall to it. Which SAEs belong together is a function of the plan and the number
of workers alone, so controller and workers agree on it without a word.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from typing import Any

import pytest

from sae_checks.plugin.state import HUB_PROBLEM, LEDGER, REQUEST, cell_of
from sae_checks.run.settle import Cell, Request, compared

# Any below: pytest-xdist is optional, and so are its types.


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    asked = node.config.stash.get(REQUEST, None) or node.config.stash.get(HUB_PROBLEM, None)
    if asked is not None:
        node.workerinput["sae_checks"] = pickle.dumps(asked)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    asked = config.stash.get(REQUEST, None)
    if asked is None or config.getoption("dist") != "load":  # another --dist is the user's own choice
        return None
    from xdist.scheduler import LoadScopeScheduling

    sae_ids, known = _own_saes(asked), {subject for subject, _ in asked.limits}

    class BySae(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            cell = cell_of(nodeid)
            if cell is None or cell[0] not in known:
                return nodeid
            return f"share {share_of(compared(cell)[0], sae_ids, self.numnodes)}"

    return BySae(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    ledger = node.config.stash.get(LEDGER, None)
    if ledger is not None:
        known = set(node.config.stash[REQUEST].limits)
        ledger.selected |= {cell for nodeid in ids if (cell := cell_of(nodeid)) in known}


def _own_saes(asked: Request) -> tuple[str, ...]:
    """The SAEs of this run's shard, which its workers share."""
    of_shard = set(asked.plan.subjects_of_shard)
    return tuple(sae_id for sae_id in asked.plan.release.sae_ids if sae_id in of_shard)


def share_of(sae_id: str, sae_ids: Collection[str], n_workers: int) -> int:
    """Which worker's share *sae_id* is: neighbours go to different workers, since early layers take longer."""
    return list(sae_ids).index(sae_id) % max(1, n_workers) if sae_id in sae_ids else 0  # stacks: all to one


def together(config: pytest.Config, subject: str) -> tuple[Cell, ...]:
    """The cells of this process's share that are selected, in the plan's order; *subject* falls to it, too."""
    asked, selected = config.stash[REQUEST], set(map(compared, config.stash[LEDGER].selected))
    sae_ids = _own_saes(asked)
    n_workers = getattr(config, "workerinput", {}).get("workercount", 1)
    share = share_of(subject, sae_ids, n_workers)
    return tuple(cell for cell in asked.limits if cell in selected and share_of(cell[0], sae_ids, n_workers) == share)
