"""Readings and a limit -> the verdict of a check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sae_checks import checks
from sae_checks.judging import sequential
from sae_checks.judging.budget import N_LEAST, Budget
from sae_checks.judging.estimates import Estimate, NotFinite, NotMeasured, ProxyMean, Reading
from sae_checks.judging.limits import Limit
from sae_checks.judging.sequential import Decision

Outcome = Literal["passed", "failed", "inconclusive", "not_measured", "reported", "error"]

N_NATS_BELOW_CLEAN = 0.01
"""Nats per token by which the spliced model may be better than the clean one. WHY a check beyond it: a reconstruction
does not predict better than what it reconstructs; an exact one differs from clean by 1e-5 at most."""

L0_BAND = (0.5, 2.0)
"""Range of the measured over the recorded L0. WHY: another corpus changes L0 by a tenth; running an SAE with the wrong
architecture (a lost threshold, TopK as ReLU) multiplies it, and may raise the explained variance."""

_WORST_FIRST: tuple[Outcome, ...] = ("error", "failed", "inconclusive", "not_measured", "reported", "passed")

_HELPS = (
    "the model predicts better with the splice than without it: either clean and spliced losses are not paired, or the "
    "text is foreign to the model"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict of one check on one SAE."""

    outcome: Outcome
    reason: str
    """one line: measure, value, interval, n and limit, or why there are none."""
    limit: Limit | None
    estimates: tuple[Estimate, ...]
    """without their samples."""
    decision: Decision | None
    """None: the limited measure is counted or exact, or was not measured."""
    is_final: bool
    """more of the corpus would not change the outcome."""


def judge(readings: Sequence[Reading], limit: Limit | None, budget: Budget) -> Verdict:
    """
    Judge whether the limited measure is within *limit*; without a limit, report what was measured.

    The rules, in this order:

    1. A reading that is not finite fails.
    2. Evidence of a loading error fails, however good the limited measure looks: a splice that helps, more active
       latents than a TopK SAE's k, an L0 far from the recorded one. While such evidence is undecided, nothing passes.
    3. A limited measure that was not measured is not judged. Neither is a drop in accuracy that the clean accuracy is
       too low to show.
    4. `sequential.decide` decides on the sample behind the measure.
    5. A measure without a sample is decided by its value, which is final only with the last sequence. Golden prompts
       are complete. Counted measures (most active latents, dead latents) have no error rate, and are inconclusive below
       N_LEAST sequences.

    With a range, the worse of its two ends counts.
    """
    if limit is not None and limit.floor is not None:
        ends = [judge(readings, end, budget) for end in limit.sides]
        worst = min(ends, key=lambda end: _WORST_FIRST.index(end.outcome))
        return replace(
            worst,
            limit=limit,
            reason=worst.reason if worst.outcome != "passed" else f"{ends[0].reason}; {limit}",
            is_final=(worst.outcome == "failed" and worst.is_final) or all(end.is_final for end in ends),
        )
    decision = None
    outcome: Outcome = "failed"
    is_final = True
    if (reason := _not_finite(readings) or _loading_error(readings, budget)) is None:
        decision = _decision(readings, limit, budget)
        outcome, reason = _outcome_and_reason(readings, limit, decision, budget)
        is_final = decision is not None or _is_never_measured(readings, limit)
        if outcome == "passed" and (doubt := _undecided_loading_error(readings, budget)) is not None:
            outcome, reason = "inconclusive", doubt
    return Verdict(
        outcome=outcome,
        reason=reason,
        limit=limit,
        estimates=tuple(replace(r, sample=None) for r in readings if isinstance(r, Estimate) and _finite(r)),
        decision=decision if decision is not None and decision.outcome == outcome else None,
        is_final=is_final and outcome != "inconclusive",
    )


def _is_never_measured(readings: Sequence[Reading], limit: Limit | None) -> bool:
    return any(
        isinstance(r, NotMeasured) and r.is_final for r in readings if limit is not None and r.measure == limit.measure
    )


def _decision(readings: Sequence[Reading], limit: Limit | None, budget: Budget) -> Decision | None:
    limited = next((r for r in readings if limit is not None and r.measure == limit.measure), None)
    if limit is None or not isinstance(limited, Estimate) or limited.sample is None:
        return None
    tested = limit if limited.proxy is None else _limit_of_proxy(limited.proxy, limit)
    return sequential.decide(limited.sample, tested, budget)


def _limit_of_proxy(proxy: ProxyMean, limit: Limit) -> Limit:
    return replace(limit, measure=proxy.measure, kind=proxy.kind, value=proxy.value, unit=proxy.unit, floor=None)


def _outcome_and_reason(
    readings: Sequence[Reading], limit: Limit | None, decision: Decision | None, budget: Budget
) -> tuple[Outcome, str]:
    if limit is None:
        known = [describe(r) for r in readings if isinstance(r, Estimate)]
        reasons = [r.reason for r in readings if isinstance(r, NotMeasured)]
        return ("reported", f"no limit is written: {', '.join(known[-2:])}") if known else ("not_measured", reasons[0])
    limited = next(r for r in readings if r.measure == limit.measure)
    if isinstance(limited, NotMeasured):
        return "not_measured", limited.reason
    assert isinstance(limited, Estimate)
    if reason := _no_room_to_fail(readings, limit):
        return "not_measured", reason
    if decision is not None:
        return decision.outcome, _reason(limited, decision, limit, budget)
    if limited.n < N_LEAST and not checks.named(limit.check).is_exact:
        return "inconclusive", f"{describe(limited)}: fewer than {N_LEAST} decide nothing; limit {limit}"
    return "passed" if limit.allows(limited.value) else "failed", f"{describe(limited)}, limit {limit}"


def _finite(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))


def describe(estimate: Estimate) -> str:
    """`ce_increase 0.0513 [0.0498, 0.0528] nats/token (n = 256)`."""
    value, low, high = (f"{x:.4g}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{estimate.measure} {value} [{low}, {high}] {estimate.unit} (n = {estimate.n})"


def _reason(limited: Estimate, decision: Decision, limit: Limit, budget: Budget) -> str:
    """`ce_increase 0.05 [0.04, 0.1] nats/token (n = 40 of 256, worst 0.2, skewness 0.7), limit ...` and more."""
    if limited.proxy is not None:
        mean = replace(limited, n=decision.n_used, proxy=None)  # WHY n: its value over all sequences is not known
        tested = _reason(mean, decision, _limit_of_proxy(limited.proxy, limit), budget)
        return f"{describe(limited)}, limit {limit}, tested by {tested}"
    low = "-inf" if decision.low is None else f"{decision.low:.4g}"
    high = "inf" if decision.high is None else f"{decision.high:.4g}"
    used = f"n = {decision.n_used} of {decision.n_most}, worst {decision.worst:.4g}, skewness {decision.skewness:.2g}"
    reason = f"{limit.measure} {decision.value:.4g} [{low}, {high}] {limit.unit} ({used}), limit {limit}"
    if decision.outcome == "inconclusive":
        return f"{reason}: {_why_inconclusive(decision, limit, budget)}"
    if limited.n > decision.n_used:
        reason += f"; all {limited.n}: {limited.value:.4g} [{limited.low:.4g}, {limited.high:.4g}]"
        if limit.allows(limited.value) != (decision.outcome == "passed"):
            reason += ", on the other side of the limit: the first look that decides is final"
    return reason


def _why_inconclusive(decision: Decision, limit: Limit, budget: Budget) -> str:
    n = decision.n_used
    if n < N_LEAST:
        return f"fewer than {N_LEAST} decide nothing"
    if limit.allows(decision.value) and n < budget.n_least_to_pass:
        return f"fewer than {budget.n_least_to_pass} cannot pass"
    if decision.n_needed is None:
        return "the value is too close to the limit for any number of sequences"
    return f"the interval contains the limit; about {max(decision.n_needed, n + 1)} like these would settle it"


def _not_finite(readings: Sequence[Reading]) -> str | None:
    for reading in readings:
        if isinstance(reading, NotFinite):
            return f"not finite: {reading.where}"
        if isinstance(reading, Estimate) and not _finite(reading):
            return f"not finite: {reading.measure} is {reading.value} [{reading.low}, {reading.high}]"
    return None


def _loading_error(readings: Sequence[Reading], budget: Budget) -> str | None:
    """Evidence that the measurement or the loading is wrong, in words."""
    most = next((r for r in readings if isinstance(r, Estimate) and r.measure == "l0_max_of_k"), None)
    if most is not None and most.value > 1:
        return f"{describe(most)}: a token has more active latents than this TopK SAE's k; it was not loaded as TopK"
    for of, bound in _plausible_limits(readings):
        assert of.sample is not None
        if sequential.decide(of.sample, bound, budget).outcome == "failed":
            return f"{describe(of)}: {bound.source}"
    return None


def _undecided_loading_error(readings: Sequence[Reading], budget: Budget) -> str | None:
    """
    A plausible limit that is still undecided while more can be measured, in words.

    WHY: otherwise a pass would depend on how much had been measured when it was reached.
    """
    for of, bound in _plausible_limits(readings):
        assert of.sample is not None
        is_all = of.sample.n + of.sample.n_without_value >= budget.n_most
        if not is_all and sequential.decide(of.sample, bound, budget).outcome == "inconclusive":
            return f"{describe(of)}: undecided whether this is plausible, {bound}"
    return None


def _plausible_limits(readings: Sequence[Reading]) -> Iterator[tuple[Estimate, Limit]]:
    """(estimate, limit) that every correctly loaded SAE keeps; the limit's source says what a breach means."""
    l0 = f"L0 is far from the one recorded for this SAE (plausible: {L0_BAND[0]:g} to {L0_BAND[1]:g} times)"
    rules: tuple[tuple[checks.Check, str, Literal["max", "min"], float, str], ...] = (
        (checks.CE_LOSS, "ce_increase", "min", -N_NATS_BELOW_CLEAN, _HELPS),
        (checks.SPARSITY, "l0_ratio", "min", L0_BAND[0], l0),
        (checks.SPARSITY, "l0_ratio", "max", L0_BAND[1], l0),
    )
    estimates = {r.measure: r for r in readings if isinstance(r, Estimate) and r.sample is not None}
    for check, measure, kind, value, source in rules:
        if (of := estimates.get(measure)) is not None:
            bound = Limit(
                check=check.name, measure=measure, kind=kind, value=value, unit=of.unit, source=source, where=""
            )
            yield of, bound


def _no_room_to_fail(readings: Sequence[Reading], limit: Limit) -> str | None:
    """
    Why a limited drop in accuracy could not fail; None: it could.

    Accuracy can drop only to chance. So the lower end of the clean accuracy must be at least twice the limit above it.
    """
    if "accuracy_drop" not in limit.measure or limit.kind != "max":
        return None
    measure = limit.measure.replace("drop", "clean")  # of the same passages
    clean = next((r for r in readings if r.measure == measure), None)
    chance = next((r.value for r in readings if r.measure == "chance" and isinstance(r, Estimate)), 0.0)
    if not isinstance(clean, Estimate) or clean.low >= chance + 2 * limit.value:
        return None
    above = f" above chance, {chance:g}" if chance else ""
    return (
        f"clean accuracy too low: {describe(clean)}; to judge a drop, its lower end must be at least twice the limit "
        f"of {limit.value:g}{above}"
    )
