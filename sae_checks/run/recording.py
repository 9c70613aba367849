"""Makes the record of a run from its results. The record has a result for every check of the plan."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from sae_checks import checks
from sae_checks.record import run_verdict
from sae_checks.run import who_chose
from sae_checks.run.settle import Cell, Request

if TYPE_CHECKING:  # WHY: the plugin imports this module in every pytest run, and these import NumPy
    from sae_checks.judging.verdict import Outcome
    from sae_checks.record.results import Record, Result


def all_results(request: Request, results: Mapping[Cell, Result], selected: Collection[Cell]) -> list[Result]:
    """
    Return a result for every check of the plan, in the plan's order.

    Args:
        request: what the run judges.
        results: of the checks that were judged. Every other check gets a result "not_measured", with the reason.
        selected: checks that the user selected.
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
    """The result of a check for which nothing was measured, with the *reason*."""
    from sae_checks.record import results

    return results.without_value(*cell, outcome, reason, request.limits[cell])


def shortcoming(request: Request, results: Mapping[Cell, Result], selected: Collection[Cell]) -> str | None:
    """Why a run without a red check is no pass; None: it passes. `run_verdict.shortcoming` has the rules."""
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
    Make the record of a run.

    Args:
        request: what the run judged.
        results: from `all_results`.
        started: UTC, ISO 8601.
        wall_s: seconds that the run took.
        exit_status: 0 for a pass; None: unknown, because the run has not ended.
    """
    from sae_checks.record.results import Record, ReleaseFacts, software

    plan = request.plan
    decided = {
        "n_items": plan.options.n_items,
        "n_queries": plan.options.n_queries,
        "ablation": plan.measures_ablation,
        "n_context_tokens": plan.n_context_tokens,
        "corpus_reason": plan.corpus_reason,
        "chosen": who_chose.sentence(request),
    }
    options = {**asdict(plan.options), **decided}
    if plan.options.history is not None:
        from sae_checks.comparing.history import store

        options["history"] = store.without_secrets(plan.options.history)  # WHY: records are published
    if request.baseline is not None:
        options["baseline_run"] = request.baseline.in_words
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
    """Why *cell* was not judged."""
    if cell not in own:
        return run_verdict.of_other_shard(str(request.plan.options.shard))
    return run_verdict.NOT_REACHED if cell in selected else run_verdict.NOT_SELECTED


def _plain(value: object) -> str | int | None:
    """The value of an option in a type that JSON has."""
    if value is None or isinstance(value, bool | int | str):
        return value
    return " ".join(value) if isinstance(value, tuple) else str(value)
