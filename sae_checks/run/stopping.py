"""Early stopping: an SAE is measured until every check of it is decided. ARCHITECTURE.md shows the loop."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sae_checks import checks
from sae_checks.comparing import baseline
from sae_checks.judging import paired_samples, recorded_l0, verdict
from sae_checks.judging.budget import Budget
from sae_checks.judging.estimates import Reading, all_not_measured
from sae_checks.judging.limits import Limit
from sae_checks.record.results import Result
from sae_checks.run.settle import Cell, Request
from sae_checks.run.table import ROW_OF, Evidence, what_settles, what_settles_comparison

if TYPE_CHECKING:
    from sae_checks.measuring.measured import Measured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The verdict on one check from what is measured so far."""

    result: Result
    """without curves, worst sequences and the like, which `completed` adds."""
    is_final: bool
    """whether measuring more of the corpus cannot change the outcome."""
    evidence: Evidence

    def completed(self) -> Result:
        """The result with curves, worst sequences, changed answers and the like, as the check's row says."""
        return ROW_OF[self.result.check].complete(self.result, self.evidence)


def judge_measured(request: Request, cell: Cell, measured: Measured[Any]) -> Judged:
    """Judge the check of *cell* by the losses measured so far."""
    subject, name = cell
    evidence = Evidence(
        measured=measured,
        limits=request.limits[cell],
        ce_limits=request.limits.get((subject, checks.CE_LOSS.name), ()),
        sae=request.plan.release.sae(subject) if subject in request.plan.release.sae_ids else None,
        golden=request.golden.get(subject),
    )
    result, is_final = _judge(request, cell, ROW_OF[name].read(evidence), measured)
    return Judged(result=result, is_final=is_final, evidence=evidence)


def judge_not_given(request: Request, cell: Cell, reason: str) -> Result:
    """The result of a check for which nothing can be measured, with the *reason*."""
    result, _ = _judge(request, cell, all_not_measured(checks.named(cell[1]), reason), None)
    return result


def _judge(
    request: Request, cell: Cell, readings: tuple[Reading, ...], measured: Measured[Any] | None
) -> tuple[Result, bool]:
    """The result of *cell* from its readings, and whether it is final: more of the corpus cannot change the outcome."""
    row, limits = ROW_OF[cell[1]], request.limits[cell]
    budget = Budget(
        n_planned=row.n_planned(request.plan.options),
        n_most=0 if measured is None else measured.n_planned,
        n_checks=request.plan.n_checks,
    )
    decided = verdict.judge_all(readings, limits, budget)
    provenance = None if measured is None else measured.provenance
    accepted = _accepted(decided, request.default_limits.get(cell[1], ()))
    told = recorded_l0.note(decided.estimates) + ("" if accepted is None else f"; accepted: {accepted}")
    result = Result(
        sae_id=cell[0],
        check=cell[1],
        outcome=decided.outcome,
        reason=decided.reason + told + what_settles(row, decided, budget.n_most, request.plan.options),
        limit=decided.limit,
        other_limits=decided.others,
        judged=decided.judged,
        accepted=accepted,
        estimates=decided.estimates,
        decision=decided.decision,
        paired_sample=None
        if provenance is None
        else paired_samples.paired_sample(readings, limits[0] if limits else None, provenance.corpus.fingerprint),
        provenance=provenance,
    )
    return result, decided.is_final


def _accepted(decided: verdict.Verdict, defaults: Sequence[Limit]) -> str | None:
    """The sources of limits that pass a value which one of *defaults* on the same measure does not allow."""
    if decided.outcome != "passed":
        return None
    each = [(decided.limit, decided.judged), *((other.limit, other.judged) for other in decided.others)]
    of = {default.measure: default for default in defaults}
    sources = (
        limit.source
        for limit, value in each
        if limit is not None and value is not None and value.measure in of and not of[value.measure].allows(value.value)
    )
    return "; ".join(dict.fromkeys(sources)) or None


def compare(request: Request, after: Result) -> Result:
    """Compare *after*, a result of this run, with the baseline of *request*."""
    assert request.baseline is not None
    (limit,) = request.limits[f"{after.sae_id}-{after.check}", checks.NO_REGRESSION.name]
    plan = request.plan
    now = baseline.Conditions(special_tokens=plan.options.special_tokens, sae_ids=plan.release.sae_ids)
    row = ROW_OF[after.check]
    budget = Budget(n_planned=row.n_planned(plan.options), n_most=0, n_checks=plan.n_checks)
    found = baseline.compare(after, request.baseline, limit, now, budget)
    return replace(found, reason=found.reason + what_settles_comparison(row, found, plan.options))


class StoppingRule:
    """
    Decides after each round of a pass which SAEs are measured further: those with an open check.

    A check is open until its verdict is final and its comparison with the baseline, if there is one, is decided. A
    final verdict stays, so other checks may keep the SAE in the pass for any time without changing it.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._open: dict[str, list[str]] = {}
        self._judged: dict[Cell, Judged] = {}
        # WHY: the profile `full` measures the whole plan, although verdicts are final before
        self._is_whole_plan = request.plan.options.profile == "full"

    def add(self, cells: Collection[Cell]) -> None:
        """Open the checks of *cells*, except those that are open or judged already."""
        for sae_id, name in cells:
            known = self._open.setdefault(sae_id, [])
            if name not in known and (sae_id, name) not in self._judged:
                known.append(name)

    def undecided(self, sae_id: str) -> tuple[str, ...]:
        """Names of the open checks of *sae_id*."""
        return tuple(self._open.get(sae_id, ()))

    def needs_more(self, sae_id: str, measured: Measured[Any]) -> bool:
        """Judge each open check of *sae_id* by *measured*, and return whether one stays open."""
        if self._is_whole_plan and measured.n < measured.n_planned:
            return True
        self._open[sae_id] = [name for name in self.undecided(sae_id) if self._stays_open((sae_id, name), measured)]
        return bool(self._open[sae_id])

    def result(self, cell: Cell, measured: Measured[Any]) -> Result:
        """The result of *cell* on all of *measured*: the kept one if the last look judged the same sequences."""
        kept = self._judged.get(cell)
        if kept is None or kept.evidence.measured.n != measured.n:
            kept = self._judged[cell] = judge_measured(self._request, cell, measured)
        return kept.completed()

    def _stays_open(self, cell: Cell, measured: Measured[Any]) -> bool:
        """Judge *cell*, keep the verdict, and return whether the check stays open."""
        judged = self._judged[cell] = judge_measured(self._request, cell, measured)
        return not judged.is_final or self._comparison_is_open(judged.result)

    def _comparison_is_open(self, after: Result) -> bool:
        """Whether the comparison is inconclusive, and the baseline has values of sequences not measured yet."""
        request = self._request
        comparison = (f"{after.sae_id}-{after.check}", checks.NO_REGRESSION.name)
        if request.baseline is None or comparison not in request.limits:
            return False
        before = request.baseline.result(after.sae_id, after.check)
        if before is None or before.paired_sample is None or after.paired_sample is None:
            return False
        has_more = after.paired_sample.n < before.paired_sample.n
        return has_more and compare(request, after).outcome == "inconclusive"
