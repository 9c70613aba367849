"""When an SAE has been measured enough: every check on it is decided. ARCHITECTURE.md draws the loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_checks import checks
from sae_checks.comparing import baseline
from sae_checks.judging import paired_samples, verdict
from sae_checks.judging.budget import Budget
from sae_checks.judging.estimates import Reading, all_not_measured
from sae_checks.record.results import Result
from sae_checks.run.settle import Cell, Request
from sae_checks.run.table import ROW_OF, Evidence, what_settles

if TYPE_CHECKING:
    from sae_checks.measuring.measured import Measured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The verdict on one check, as far as it was measured."""

    result: Result
    """without what people look at beside the measures: see `completed`."""
    is_final: bool
    """measuring more of the corpus would not change the outcome."""
    evidence: Evidence

    def completed(self) -> Result:
        """The result with its curves, worst sequences, changed answers and the like."""
        return ROW_OF[self.result.check].complete(self.result, self.evidence)


def judge_measured(request: Request, cell: Cell, measured: Measured[Any]) -> Judged:
    """Read the check of *cell* from what was measured, and judge it."""
    subject, name = cell
    evidence = Evidence(
        measured=measured,
        limit=request.limits[cell],
        ce_limit=request.limits.get((subject, checks.CE_LOSS.name)),
        sae=request.plan.release.sae(subject) if subject in request.plan.release.sae_ids else None,
        golden=request.golden.get(subject),
    )
    result, is_final = _judge(request, cell, ROW_OF[name].read(evidence), measured)
    return Judged(result=result, is_final=is_final, evidence=evidence)


def judge_not_given(request: Request, cell: Cell, reason: str) -> Result:
    """The result of a check that nothing can be measured for, because of *reason*."""
    result, _ = _judge(request, cell, all_not_measured(checks.named(cell[1]), reason), None)
    return result


def _judge(
    request: Request, cell: Cell, readings: tuple[Reading, ...], measured: Measured[Any] | None
) -> tuple[Result, bool]:
    """The result of *cell* from its readings, and whether more of the corpus could not change it."""
    row, limit = ROW_OF[cell[1]], request.limits[cell]
    budget = Budget(
        n_planned=row.n_planned(request.plan.options),
        n_most=0 if measured is None else measured.n_planned,
        n_checks=request.plan.n_checks,
    )
    decided = verdict.judge(readings, limit, budget)
    provenance = None if measured is None else measured.provenance
    result = Result(
        sae_id=cell[0],
        check=cell[1],
        outcome=decided.outcome,
        reason=decided.reason + what_settles(row, decided.decision, request.plan.options),
        limit=limit,
        estimates=decided.estimates,
        decision=decided.decision,
        paired_sample=None
        if provenance is None
        else paired_samples.paired_sample(readings, limit, provenance.corpus.fingerprint),
        provenance=provenance,
    )
    return result, decided.is_final


def compare(request: Request, after: Result) -> Result:
    """The result of comparing *after* with the baseline of *request*."""
    assert request.baseline is not None
    limit = request.limits[f"{after.sae_id}-{after.check}", checks.NO_REGRESSION.name]
    assert limit is not None
    plan = request.plan
    now = baseline.Conditions(special_tokens=plan.options.special_tokens, sae_ids=plan.release.sae_ids)
    budget = Budget(n_planned=ROW_OF[after.check].n_planned(plan.options), n_most=0, n_checks=plan.n_checks)
    return baseline.compare(after, request.baseline, limit, now, budget)


class StoppingRule:
    """
    Which SAEs a pass measures further: those with an open check.

    A check is open until its verdict is final, and its comparison with the baseline, if there is one, is decided. A
    final verdict never opens again, so it does not matter how long the other checks keep the SAE.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._open: dict[str, list[str]] = {}
        self._judged: dict[Cell, Judged] = {}
        # WHY: `full` measures the whole plan, whatever is decided before
        self._is_whole_plan = request.plan.options.profile == "full"

    def add(self, cells: Collection[Cell]) -> None:
        """Open the checks of *cells* that the rule does not know yet."""
        for sae_id, name in cells:
            known = self._open.setdefault(sae_id, [])
            if name not in known and (sae_id, name) not in self._judged:
                known.append(name)

    def undecided(self, sae_id: str) -> tuple[str, ...]:
        """Names of the checks of *sae_id* that are open."""
        return tuple(self._open.get(sae_id, ()))

    def needs_more(self, sae_id: str, measured: Measured[Any]) -> bool:
        """Look at *measured*: judge each open check of *sae_id* once. True while one stays open."""
        if self._is_whole_plan and measured.n < measured.n_planned:
            return True
        self._open[sae_id] = [name for name in self.undecided(sae_id) if self._stays_open((sae_id, name), measured)]
        return bool(self._open[sae_id])

    def result(self, cell: Cell, measured: Measured[Any]) -> Result:
        """The result of *cell* on all of *measured*; judged now unless the last look has done so."""
        kept = self._judged.get(cell)
        if kept is None or kept.evidence.measured.n != measured.n:
            kept = self._judged[cell] = judge_measured(self._request, cell, measured)
        return kept.completed()

    def _stays_open(self, cell: Cell, measured: Measured[Any]) -> bool:
        judged = self._judged[cell] = judge_measured(self._request, cell, measured)
        return not judged.is_final or self._comparison_is_open(judged.result)

    def _comparison_is_open(self, after: Result) -> bool:
        """Whether the baseline has more values that the comparison could still use, and needs them."""
        request = self._request
        if (
            request.baseline is None
            or (f"{after.sae_id}-{after.check}", checks.NO_REGRESSION.name) not in request.limits
        ):
            return False
        before = request.baseline.result(after.sae_id, after.check)
        if before is None or before.paired_sample is None or after.paired_sample is None:
            return False
        is_more = after.paired_sample.n < before.paired_sample.n
        return is_more and compare(request, after).outcome == "inconclusive"
