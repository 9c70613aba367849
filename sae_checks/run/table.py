"""The table of checks: what measures each check, what reads it, how much of it is planned, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sae_checks import checks
from sae_checks.judging import (
    answer_readings,
    changed_answers,
    corpus_readings,
    golden_readings,
    position_readings,
    propagation_readings,
    study_readings,
    worst_sequences,
)
from sae_checks.judging.budget import N_LEAST, N_LEAST_TO_PASS
from sae_checks.judging.estimates import Reading
from sae_checks.judging.limits import Limit
from sae_checks.judging.verdict import Verdict
from sae_checks.plan.golden_prompts import Golden
from sae_checks.plan.options import NO_CORPUS, Options
from sae_checks.plan.plan import Plan
from sae_checks.record.results import Result
from sae_checks.release.natural_order import natural_key
from sae_checks.release.release import Sae

if TYPE_CHECKING:
    from sae_checks.measuring.measured import Measured


_N_SETTLES_MOST = 100_000
"""Sequences or items beyond which more of them is no advice."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What the readings of one check of one SAE or stack are computed from."""

    measured: Measured[Any]  # Any: the losses that the row's pass or study gives
    limits: tuple[Limit, ...]
    """of the check; empty: no limit is written."""
    ce_limits: tuple[Limit, ...] = ()
    """of ce_loss of the same SAE; empty for a stack."""
    sae: Sae | None = None
    """configuration of the SAE; None for a stack."""
    golden: Golden | None = None
    """golden prompts of the SAE; None: it has none."""

    @property
    def n_listed(self) -> int | None:
        """Number of items in the whole source, of which the plan takes some; None: unknown."""
        provenance = self.measured.provenance
        return None if provenance is None else provenance.corpus.n_listed

    @property
    def losses(self) -> Any:  # Any: as in `measured`
        """The losses, one row per sequence or item."""
        return self.measured.losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One check: how it is measured, read and planned."""

    check: checks.Check
    measured_by: str
    """pass ("text", "lambada", "cbt", "golden", "weights") or study (a key of `measuring.local_studies.STUDIES`)."""
    read: Callable[[Evidence], tuple[Reading, ...]]
    """computes the readings, one for each measure of the check."""
    n_planned: Callable[[Options], int] = lambda options: options.n_sequences
    """number of sequences, passages or queries that the verdict may use, at most."""
    option: Callable[[int], str] = lambda n: f"--sae-sequences={n}"
    """option that plans at least *n* of them: the inverse of `n_planned`."""
    source_option: str = "--sae-corpus"
    """option that names the source of them."""
    not_given: Callable[[Plan], str | None] = lambda _: None
    """why the check cannot be measured in a plan; None: it can."""
    complete: Callable[[Result, Evidence], Result] = lambda result, _: result
    """adds curves, worst sequences and the like to a result."""

    @property
    def needs_text(self) -> bool:
        """Whether it is measured on the text that `source_option` names."""
        return self.measured_by not in ("golden", "weights")

    @property
    def is_study(self) -> bool:
        """Whether a study measures the check."""
        return self.measured_by not in ("text", "lambada", "cbt", "golden", "weights")


def _no_lambada(plan: Plan) -> str | None:
    if plan.options.lambada == NO_CORPUS:
        return f"switched off (--sae-lambada={NO_CORPUS})"
    return None if plan.lambada is not None else "no Lambada passages were given (--sae-lambada)"


def _no_cbt(plan: Plan) -> str | None:
    if plan.options.cbt == NO_CORPUS:
        return f"switched off (--sae-cbt={NO_CORPUS})"
    return None if plan.cbt is not None else "no Children's Book Test was given (--sae-cbt)"


def _n_study(options: Options) -> int:
    return options.n_study_sequences


def _study_option(n: int) -> str:
    return f"--sae-study-sequences={n}"


def what_settles(row: Row, decided: Verdict, n_most: int, options: Options) -> str:
    """The line that says what would settle an inconclusive check, of which *n_most* values can be measured; or none."""
    if decided.outcome != "inconclusive":
        return ""
    decision = decided.decision
    n = N_LEAST_TO_PASS if decision is None or decision.n_used < N_LEAST else decision.n_needed
    if n is None or n > _N_SETTLES_MOST:
        return f"\n  try:      --sae-thresholds=FILE with another limit: more {row.check.sampled} would not settle it"
    n = max(n, n_most + 1, N_LEAST_TO_PASS)
    if n_most < row.n_planned(options):  # everything there is was measured
        return f"\n  try:      {row.source_option}=FILE with at least {n} rows, and {row.option(n)}"
    return f"\n  try:      {row.option(n)}"


def what_settles_comparison(row: Row, compared: Result, options: Options) -> str:
    """The same for a comparison with the baseline, which has as many pairs as both runs have values."""
    if compared.outcome != "inconclusive":
        return ""
    n = N_LEAST_TO_PASS if compared.decision is None else compared.decision.n_needed
    if n is None or n > _N_SETTLES_MOST:
        return "\n  try:      --sae-thresholds=FILE with another margin: more pairs would not settle it"
    return f"\n  try:      --sae-profile=full {row.option(max(n, row.n_planned(options)))} in both runs"


def _lambada(evidence: Evidence) -> tuple[Reading, ...]:
    assert evidence.sae is not None
    return answer_readings.lambada(
        evidence.losses,
        n_training_context_tokens=evidence.sae.n_training_context_tokens,
        n_listed=evidence.n_listed,
    )


def _usable_context(evidence: Evidence) -> tuple[Reading, ...]:
    most_nats = _bound(evidence.ce_limits, "ce_increase", "max")
    least = _bound(evidence.limits, "usable_context", "min")
    return position_readings.usable_context(evidence.losses, most_nats, least)


def _bound(limits: Sequence[Limit], measure: str, kind: str) -> float | None:
    """The value of the limit of *kind* ("max" or "min") on *measure*."""
    return next((limit.value for limit in limits if (limit.measure, limit.kind) == (measure, kind)), None)


def _sparsity(evidence: Evidence) -> tuple[Reading, ...]:
    assert evidence.sae is not None
    return corpus_readings.sparsity(evidence.losses, recorded_l0=evidence.sae.recorded_l0, k=evidence.sae.k)


def _golden(evidence: Evidence) -> tuple[Reading, ...]:
    assert evidence.golden is not None
    return golden_readings.readings(golden_readings.answers(evidence.losses, evidence.golden))


def _with_worst_sequences(result: Result, evidence: Evidence) -> Result:
    """Add the worst sequences, within the training context as ce_loss is."""
    losses, n = evidence.losses, evidence.losses.n_training_context_tokens
    found = worst_sequences.worst_sequences(
        losses.increase_nats[:, :n],
        losses.documents,
        lambda i: evidence.measured.tokens_of(i)[: None if n is None else n + 1],
    )
    return replace(result, worst_sequences=found)


def _with_steps(result: Result, evidence: Evidence) -> Result:
    return replace(result, stack_steps=study_readings.stack_steps(evidence.losses))


def _with_wrong_answers(result: Result, evidence: Evidence) -> Result:
    assert evidence.golden is not None
    answers = golden_readings.answers(evidence.losses, evidence.golden)
    return replace(result, reason="\n".join([result.reason, *(str(a) for a in answers if not a.error <= 1)]))


def _with_copies(result: Result, evidence: Evidence) -> Result:
    copies = sorted(evidence.losses, key=natural_key)
    return replace(result, reason=f"{result.reason}\n  the same weights as {', '.join(copies)}") if copies else result


ROWS: tuple[Row, ...] = (
    Row(
        check=checks.CE_LOSS,
        measured_by="text",
        read=lambda evidence: corpus_readings.ce_loss(evidence.losses),
        complete=_with_worst_sequences,
    ),
    Row(
        check=checks.LAMBADA,
        measured_by="lambada",
        read=_lambada,
        n_planned=lambda options: options.n_items,
        option=lambda n: f"--sae-sequences={math.ceil(n * 256 / 1000)}",
        source_option="--sae-lambada",
        not_given=_no_lambada,
        complete=lambda result, evidence: replace(
            result, changed_answers=changed_answers.changed_answers(evidence.losses, evidence.measured.texts)
        ),
    ),
    Row(
        check=checks.CBT,
        measured_by="cbt",
        read=lambda evidence: answer_readings.cbt(evidence.losses, n_listed=evidence.n_listed),
        n_planned=lambda options: options.n_queries,
        option=lambda n: f"--sae-sequences={math.ceil(n * 256 / 200)}",
        source_option="--sae-cbt",
        not_given=_no_cbt,
        complete=lambda result, evidence: replace(
            result, changed_choices=changed_answers.changed_choices(evidence.losses, evidence.measured.choices)
        ),
    ),
    Row(
        check=checks.LONG_CONTEXT,
        measured_by="text",
        read=lambda evidence: corpus_readings.long_context(evidence.losses),
        complete=lambda result, evidence: replace(result, curves=position_readings.curves(evidence.losses)),
    ),
    Row(check=checks.USABLE_CONTEXT, measured_by="text", read=_usable_context),
    Row(check=checks.SPARSITY, measured_by="text", read=_sparsity),
    Row(
        check=checks.PROPAGATION,
        measured_by="propagation",
        read=lambda evidence: propagation_readings.propagation(evidence.losses),
        n_planned=_n_study,
        option=_study_option,
        complete=lambda result, evidence: replace(result, downstream=propagation_readings.matrix(evidence.losses)),
    ),
    Row(
        check=checks.NEXT_SAE,
        measured_by="propagation",
        read=lambda evidence: propagation_readings.next_sae(evidence.losses),
        n_planned=_n_study,
        option=_study_option,
    ),
    Row(
        check=checks.LAST_SAE,
        measured_by="propagation",
        read=lambda evidence: propagation_readings.last_sae(evidence.losses),
        n_planned=_n_study,
        option=_study_option,
    ),
    Row(
        check=checks.OWN_LAYER,
        measured_by="own_layer",
        read=lambda evidence: study_readings.own_layer(evidence.losses),
        n_planned=_n_study,
        option=_study_option,
    ),
    Row(
        check=checks.DISTINCT,
        measured_by="weights",
        read=lambda evidence: corpus_readings.distinct(len(evidence.losses)),
        complete=_with_copies,
    ),
    Row(
        check=checks.RANDOM_ERROR,
        measured_by="random_error",
        read=lambda evidence: study_readings.random_error(evidence.losses),
        n_planned=_n_study,
        option=_study_option,
    ),
    Row(check=checks.GOLDEN, measured_by="golden", read=_golden, complete=_with_wrong_answers),
    Row(
        check=checks.STACKED,
        measured_by="stacked",
        read=lambda evidence: study_readings.stacked(evidence.losses),
        n_planned=_n_study,
        option=_study_option,
        complete=_with_steps,
    ),
    Row(
        check=checks.STACKED_LAMBADA,
        measured_by="stacked_lambada",
        read=lambda evidence: study_readings.stacked_lambada(evidence.losses),
        n_planned=lambda options: options.n_study_items,
        option=lambda n: f"--sae-study-sequences={math.ceil(n / 4)}",
        source_option="--sae-lambada",
        not_given=_no_lambada,
        complete=_with_steps,
    ),
)
"""One row per check, in the catalogue's order."""
ROW_OF = {row.check.name: row for row in ROWS}
