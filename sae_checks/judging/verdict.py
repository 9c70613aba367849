"""Readings x limit -> what follows. The only room that decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sae_checks import checks
from sae_checks.judging import sequential
from sae_checks.judging.budget import N_LEAST, Budget
from sae_checks.judging.estimates import Estimate, NotFinite, NotMeasured, Reading, StandIn
from sae_checks.judging.limits import Limit
from sae_checks.judging.sequential import Decision

Outcome = Literal["passed", "failed", "inconclusive", "not_measured", "reported", "error"]

N_NATS_BELOW_CLEAN = 0.01
"""Nats per token by which a splice may seem to help before the measurement is doubted. In aggregate a reconstruction
does not predict better than what it reconstructs; an exact one is 1e-5 away from clean at most."""

L0_BAND = (0.5, 2.0)
"""Measured over recorded L0. Another corpus moves L0 by a tenth; an architecture that was taken for another (a lost
threshold, TopK as ReLU) multiplies it, and may explain more variance for it."""


_WORST_FIRST: tuple[Outcome, ...] = ("error", "failed", "inconclusive", "not_measured", "reported", "passed")
"""A range is kept only where both its ends are."""

_HELPS = (
    "the model predicts better with the splice than without. Either clean and spliced are not paired, or this text is "
    "foreign to the model; neither is a pass"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one check says of one SAE."""

    outcome: Outcome
    reason: str
    """one line: measure, value, interval, n and limit, or why there is none."""
    limit: Limit | None
    estimates: tuple[Estimate, ...]
    """without their samples."""
    decision: Decision | None
    """None: what is limited was counted, is exact, or was not measured."""
    is_final: bool
    """more of the corpus would not change the outcome."""


def judge(readings: Sequence[Reading], limit: Limit | None, budget: Budget) -> Verdict:
    """
    Whether the limited measure is within *limit*, as far as *budget* can tell; without one what was measured is told.

    In this order: anything not finite fails; so does what cannot be right (a splice that helps, more latents than a
    TopK SAE's k, an L0 far from the recorded one), and nothing passes while that is open; a limited measure that was
    not measured is not judged, nor a drop in accuracy where the clean accuracy leaves no room to exceed the limit; then
    `sequential.decide` decides on the sample behind the measure.

    What has no sample is decided by its value, which is final with the last sequence alone. Golden prompts are all
    there are. The most latents of a token, the dead latents and the like are counted, not estimated: so their verdict
    promises no error rate, and below N_LEAST sequences it is inconclusive.
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
    if (reason := _not_finite(readings) or _cannot_be_right(readings, budget)) is None:
        decision = _decision(readings, limit, budget)
        outcome, reason = _decided(readings, limit, decision, budget)
        is_final = decision is not None or _is_never_measured(readings, limit)
        if outcome == "passed" and (question := _open_question(readings, budget)) is not None:
            outcome, reason = "inconclusive", question
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
    tested = limit if limited.stand_in is None else _tested(limited.stand_in, limit)
    return sequential.decide(limited.sample, tested, budget)


def _tested(stand_in: StandIn, limit: Limit) -> Limit:
    """What the sample of a measure that is no mean has to keep for *limit* to be kept."""
    return replace(
        limit, measure=stand_in.measure, kind=stand_in.kind, value=stand_in.value, unit=stand_in.unit, floor=None
    )


def _decided(
    readings: Sequence[Reading], limit: Limit | None, decision: Decision | None, budget: Budget
) -> tuple[Outcome, str]:
    if limit is None:
        known = [spoken(r) for r in readings if isinstance(r, Estimate)]
        reasons = [r.reason for r in readings if isinstance(r, NotMeasured)]
        return ("reported", f"no limit is written: {', '.join(known[-2:])}") if known else ("not_measured", reasons[0])
    limited = next(r for r in readings if r.measure == limit.measure)
    if isinstance(limited, NotMeasured):
        return "not_measured", limited.reason
    assert isinstance(limited, Estimate)
    if reason := _no_room_to_fail(readings, limit):
        return "not_measured", reason
    if decision is not None:
        return decision.outcome, _told(limited, decision, limit, budget)
    if limited.n < N_LEAST and not checks.named(limit.check).is_exact:
        return "inconclusive", f"{spoken(limited)}: fewer than {N_LEAST} decide nothing; limit {limit}"
    return "passed" if limit.allows(limited.value) else "failed", f"{spoken(limited)}, limit {limit}"


def _finite(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))


def spoken(estimate: Estimate) -> str:
    """`ce_increase 0.0513 [0.0498, 0.0528] nats/token (n = 256)`."""
    value, low, high = (f"{x:.4g}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{estimate.measure} {value} [{low}, {high}] {estimate.unit} (n = {estimate.n})"


def _told(limited: Estimate, decision: Decision, limit: Limit, budget: Budget) -> str:
    """`ce_increase 0.05 [0.04, 0.1] nats/token (n = 40 of 256, worst 0.2, skewness 0.7), limit ...`, what misses."""
    if limited.stand_in is not None:
        of_mean = replace(limited, n=decision.n_used, stand_in=None)  # what is told of all is told of the measure
        tested = _told(of_mean, decision, _tested(limited.stand_in, limit), budget)
        return f"{spoken(limited)}, limit {limit}, tested by {tested}"
    low = "-inf" if decision.low is None else f"{decision.low:.4g}"
    high = "inf" if decision.high is None else f"{decision.high:.4g}"
    seen = f"n = {decision.n_used} of {decision.n_most}, worst {decision.worst:.4g}, skewness {decision.skewness:.2g}"
    told = f"{limit.measure} {decision.value:.4g} [{low}, {high}] {limit.unit} ({seen}), limit {limit}"
    if decision.outcome == "inconclusive":
        return f"{told}: {_missing(decision, limit, budget)}"
    if limited.n > decision.n_used:
        told += f"; all {limited.n}: {limited.value:.4g} [{limited.low:.4g}, {limited.high:.4g}]"
        if limit.allows(limited.value) != (decision.outcome == "passed"):
            told += ", on the other side of the limit: the first look that decides is final"
    return told


def _missing(decision: Decision, limit: Limit, budget: Budget) -> str:
    n = decision.n_used
    if n < N_LEAST:
        return f"fewer than {N_LEAST} decide nothing"
    if limit.allows(decision.value) and n < budget.n_least_to_pass:
        return f"fewer than {budget.n_least_to_pass} cannot pass"
    if decision.n_needed is None:
        return "the value is the limit, and no number of sequences would tell them apart"
    return f"the interval holds the limit; about {max(decision.n_needed, n + 1)} like these would settle it"


def _not_finite(readings: Sequence[Reading]) -> str | None:
    for reading in readings:
        if isinstance(reading, NotFinite):
            return f"not finite: {reading.where}"
        if isinstance(reading, Estimate) and not _finite(reading):
            return f"not finite: {reading.measure} is {reading.value} [{reading.low}, {reading.high}]"
    return None


def _cannot_be_right(readings: Sequence[Reading], budget: Budget) -> str | None:
    """What says that the measurement or the loading is wrong, be the limited measure as good as it may."""
    most = next((r for r in readings if isinstance(r, Estimate) and r.measure == "l0_max_of_k"), None)
    if most is not None and most.value > 1:
        return f"{spoken(most)}: a token has more active latents than this TopK SAE's k; it is run as something else"
    for of, bound in _bounds_of_reason(readings):
        assert of.sample is not None
        if sequential.decide(of.sample, bound, budget).outcome == "failed":
            return f"{spoken(of)}: {bound.source}"
    return None


def _open_question(readings: Sequence[Reading], budget: Budget) -> str | None:
    """
    What may still turn out not to be right when more is measured, while there is more.

    So a pass does not depend on how much was measured when it was asked for.
    """
    for of, bound in _bounds_of_reason(readings):
        assert of.sample is not None
        is_all = of.sample.n + of.sample.n_silent >= budget.n_most
        if not is_all and sequential.decide(of.sample, bound, budget).outcome == "inconclusive":
            return f"{spoken(of)}: it is not decided yet whether it can be right, {bound}"
    return None


def _bounds_of_reason(readings: Sequence[Reading]) -> Iterator[tuple[Estimate, Limit]]:
    """What no sound measurement goes beyond, whatever is limited; each limit's source says what to think if it does."""
    l0 = f"L0 is far from the one recorded for this SAE ({L0_BAND[0]:g} to {L0_BAND[1]:g} of it)"
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
    A check that cannot fail is no check: accuracy can drop by no more than it was above chance.

    The clean accuracy, at the lower end of its interval, must be at least twice the limit above what guessing gets.
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
        f"clean accuracy too low: {spoken(clean)}, and a drop can only be judged where the lower end is at least twice "
        f"the limit of {limit.value:g}{above}"
    )
