"""Results of a run -> its record: a result for every check of the plan, and the verdict on the run."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from sae_checks import checks
from sae_checks.record import run_verdict
from sae_checks.run.settle import Cell, Request

if TYPE_CHECKING:  # the plugin reads this in every pytest run: no NumPy
    from sae_checks.judging.verdict import Outcome
    from sae_checks.record.results import Record, Result


def all_results(request: Request, results: Mapping[Cell, Result], selected: Collection[Cell]) -> list[Result]:
    """
    A result for every check of the plan, in the plan's order.

    Args:
        request: what the run judges.
        results: what was judged.
        selected: what was to be judged; a check that is not in *results* says why.
    """
    cells = [(subject, check.name) for subject in request.plan.subjects for check in checks.CHECKS]
    cells += [cell for cell in request.limits if cell[1] == checks.NO_REGRESSION.name]
    own = request.own
    return [
        results.get(cell) or without_verdict(request, cell, "not_measured", _why_not(request, cell, own, selected))
        for cell in cells
        if cell in request.limits
    ]


def without_verdict(request: Request, cell: Cell, outcome: Outcome, reason: str) -> Result:
    """The result of a check that nothing was measured for, because of *reason*."""
    from sae_checks.record.results import Result

    return Result(sae_id=cell[0], check=cell[1], outcome=outcome, reason=reason, limit=request.limits[cell])


def shortcoming(request: Request, results: Mapping[Cell, Result], selected: Collection[Cell]) -> str | None:
    """Why the run is no pass although none of its checks is red; None: it is one. See `run_verdict.shortcoming`."""
    return run_verdict.shortcoming(
        results.values(),
        selected,
        sae_ids=request.plan.release.sae_ids,
        comparisons={cell for cell in request.limits if cell[1] == checks.NO_REGRESSION.name},
        baseline=request.plan.options.baseline,
    )


def make_record(
    request: Request, results: Collection[Result], *, started: str, wall_s: float, exit_status: int | None
) -> Record:
    """
    The record of a run.

    Args:
        request: what the run judged.
        results: what `all_results` gives.
        started: UTC, ISO 8601.
        wall_s: seconds that the run took.
        exit_status: 0 for a pass.
    """
    from sae_checks.record.results import Record, ReleaseFacts, software

    plan = request.plan
    chosen = {
        "n_items": plan.options.n_items,
        "n_queries": plan.options.n_queries,
        "ablation": plan.measures_ablation,
        "n_context_tokens": plan.n_context_tokens,
        "corpus_reason": plan.corpus_reason,
    }
    options = {**asdict(plan.options), **chosen}
    if plan.options.history is not None:
        from sae_checks.comparing.history import store

        options["history"] = store.without_secrets(plan.options.history)  # records are shown around
    return Record(
        started=started,
        wall_s=round(wall_s, 3),
        release=ReleaseFacts(
            name=plan.release.name,
            source=plan.release.source,
            revision=plan.release.revision,
            sae_ids=plan.release.sae_ids,
        ),
        options=tuple((key, _plain(value)) for key, value in options.items()),
        software=software(),
        platform=platform.platform(),
        results=tuple(results),
        exit_status=exit_status,
    )


def _why_not(request: Request, cell: Cell, own: Collection[Cell], selected: Collection[Cell]) -> str:
    """Why there is no result of *cell*."""
    if cell not in own:
        return run_verdict.of_other_shard(str(request.plan.options.shard))
    return run_verdict.NOT_REACHED if cell in selected else run_verdict.NOT_SELECTED


def _plain(value: object) -> str | int | None:
    """An option as JSON holds it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    return " ".join(value) if isinstance(value, tuple) else str(value)
