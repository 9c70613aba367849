"""
Runs under pytest-xdist: the controller settles the request for all workers, and each SAE is measured on one worker.

A worker measures all its SAEs in one clean pass. Controller and workers compute the same division of SAEs, because it
depends only on the plan and on the number of workers.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from typing import Any

import pytest

from sae_checks.plugin.state import REQUEST, RUN_STATE, cell_in_nodeid
from sae_checks.run.settle import Cell, Request, measured_cell

# WHY Any below: pytest-xdist is optional and has no types


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send the request to a worker."""
    settled = node.config.stash.get(REQUEST, None)
    if settled is not None:
        node.workerinput["sae_checks"] = pickle.dumps(settled)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Schedule all checks of one share on one worker."""
    request = config.stash.get(REQUEST, None)
    if request is None or config.getoption("dist") != "load":  # WHY: the user has chosen another --dist
        return None
    from xdist.scheduler import LoadScopeScheduling

    sae_ids, subjects = _sae_ids_of_shard(request), {subject for subject, _ in request.limits}

    class BySae(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            """The scope of a test; xdist runs all tests of a scope on one worker."""
            cell = cell_in_nodeid(nodeid)
            if cell is None or cell[0] not in subjects:
                return nodeid
            return f"share {_share(measured_cell(cell)[0], sae_ids, self.numnodes)}"

    return BySae(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Note which checks are selected: on the controller pytest collects nothing."""
    state = node.config.stash.get(RUN_STATE, None)
    if state is not None:
        known = set(node.config.stash[REQUEST].limits)
        state.selected |= {cell for nodeid in ids if (cell := cell_in_nodeid(nodeid)) in known}


def selected_in_share(config: pytest.Config, subject: str) -> tuple[Cell, ...]:
    """The selected cells of the share that has *subject*, in the plan's order. Without xdist there is one share."""
    request, selected = config.stash[REQUEST], set(map(measured_cell, config.stash[RUN_STATE].selected))
    sae_ids = _sae_ids_of_shard(request)
    n_workers = getattr(config, "workerinput", {}).get("workercount", 1)
    share = _share(subject, sae_ids, n_workers)
    return tuple(cell for cell in request.limits if cell in selected and _share(cell[0], sae_ids, n_workers) == share)


def _sae_ids_of_shard(request: Request) -> tuple[str, ...]:
    """The ids of the SAEs in the shard of this run (--sae-shard), which its workers divide."""
    of_shard = set(request.plan.subjects_of_shard)
    return tuple(sae_id for sae_id in request.plan.release.sae_ids if sae_id in of_shard)


def _share(subject: str, sae_ids: Collection[str], n_workers: int) -> int:
    """
    The share of an SAE or stack, from 0 to *n_workers* - 1; each worker measures one share.

    Neighbouring SAEs are in different shares because SAEs of early layers take longer. All stacks are in share 0.
    """
    return list(sae_ids).index(subject) % max(1, n_workers) if subject in sae_ids else 0
