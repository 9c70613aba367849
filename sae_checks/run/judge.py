"""Judges one check of one SAE or stack: measures what the check needs, until it is decided, and diagnoses a red SAE."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from sae_checks import checks, errors
from sae_checks.diagnosis import Diagnosis
from sae_checks.record import run_verdict
from sae_checks.record.results import Result, without_value
from sae_checks.release import release
from sae_checks.run.settle import Cell, Request
from sae_checks.run.stopping import StoppingRule, compare, judge_measured, judge_not_given
from sae_checks.run.table import ROW_OF, Row

if TYPE_CHECKING:
    from sae_checks.measuring.local import LocalExecutor
    from sae_checks.measuring.local_studies import StudyKey


class Judge:
    """Judges the checks of one request, and keeps the verdicts that were reached while measuring."""

    def __init__(self, request: Request, executor: LocalExecutor) -> None:
        self._request = request
        self.executor = executor
        self._rules: dict[str, StoppingRule] = {}
        self._diagnoses: dict[str, Diagnosis] = {}

    def result(self, cell: Cell, together: Collection[Cell] = ()) -> Result:
        """
        Measure and judge one check of one SAE or stack.

        Args:
            cell: the check to judge.
            together: other cells of this run. Those that the same pass measures are measured with it; an SAE leaves
                the pass when all its cells are decided.

        Returns:
            The result. If the check cannot be measured its outcome is "error" or "not_measured", with the reason.
            Every red result of an SAE has its diagnosis, which is measured when the first of them is judged.
        """
        return self._with_diagnosis(self._result(cell, together), cell[0], together)

    def comparison(self, after: Result, together: Collection[Cell] = ()) -> Result:
        """The comparison of *after*, a result of this run, with the baseline; red ones have the diagnosis, too."""
        return self._with_diagnosis(compare(self._request, after), after.sae_id, together)

    def _with_diagnosis(self, result: Result, sae_id: str, together: Collection[Cell]) -> Result:
        """*result* with the diagnosis of *sae_id*, if it is red by what was measured."""
        profile = self._request.plan.options.profile
        is_red = result.outcome != "error" and run_verdict.is_red(result.outcome, profile=profile)
        if not is_red or sae_id not in self._request.plan.release.sae_ids:
            return result
        if sae_id not in self._diagnoses:
            compares_weights = (sae_id, checks.DISTINCT.name) in {*together, (sae_id, result.check)}
            self._diagnoses[sae_id] = self.executor.diagnose(sae_id, compares_weights=compares_weights)
        return replace(result, diagnosis=self._diagnoses[sae_id])

    def _result(self, cell: Cell, together: Collection[Cell]) -> Result:
        """As `result`, without a diagnosis."""
        row = ROW_OF[cell[1]]
        if (reason := self._why_impossible(row, cell[0])) is not None:
            return judge_not_given(self._request, cell, reason)
        try:
            return self._judge(row, cell, together)
        except errors.SaeChecksError as problem:
            return without_value(*cell, "error", str(problem), self._request.limits[cell])

    def _judge(self, row: Row, cell: Cell, together: Collection[Cell]) -> Result:
        """Measure as *row* says, and judge; raises where the check cannot be measured."""
        request, executor, subject = self._request, self.executor, cell[0]
        if row.is_study:
            measured = executor.study((row.measured_by, subject), self._studies(together))
            return judge_measured(request, cell, measured).completed()
        if row.measured_by == "golden":
            measured = executor.golden(subject, request.golden[subject])
            return judge_measured(request, cell, measured).completed()
        if row.measured_by == "weights":
            return judge_measured(request, cell, executor.copies(subject)).completed()
        rule = self._rules.setdefault(row.measured_by, StoppingRule(request))
        same_pass = [cell, *(each for each in together if ROW_OF[each[1]].measured_by == row.measured_by)]
        rule.add(same_pass)
        studies = self._studies(together) if row.measured_by == "text" else ()
        sae_ids = dict.fromkeys(sae_id for sae_id, _ in same_pass)
        measured = executor.measure(row.measured_by, subject, sae_ids, rule, studies)
        result = rule.result(cell, measured)
        if row.check is checks.CE_LOSS and release.matching([subject], request.plan.options.explain):
            documents = [each.document_index for each in result.worst_sequences]
            return replace(result, explanation=executor.explain(subject, measured, documents))
        return result

    def _studies(self, cells: Collection[Cell]) -> list[StudyKey]:
        """The studies that measure *cells*, without those that cannot be measured."""
        rows = [(ROW_OF[name], subject) for subject, name in cells if ROW_OF[name].is_study]
        return [(row.measured_by, subject) for row, subject in rows if self._why_impossible(row, subject) is None]

    def _why_impossible(self, row: Row, subject: str) -> str | None:
        """Why the check of *row* cannot be measured on *subject*; None: it can, as far as the plan tells."""
        if (reason := row.not_given(self._request.plan)) is not None:
            return reason
        return next((stack.problem for stack in self._request.plan.stacks if stack.stack_id == subject), None)
