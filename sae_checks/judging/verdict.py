"""Readings and a limit -> the verdict of a check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from sae_checks import checks
from sae_checks.judging import judged, sequential
from sae_checks.judging.budget import N_LEAST, Budget
from sae_checks.judging.estimates import Estimate, NotFinite, NotMeasured, ProxyMean, Reading
from sae_checks.judging.judged import JudgedValue
from sae_checks.judging.limits import Limit
from sae_checks.judging.propagation_readings import LEAST_ERROR
from sae_checks.judging.samples import Answers
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


LEAST_PLACE_RATIO = 0.9
"""Root of the variance that an SAE leaves unexplained at another place of its block, over that at its own hook. WHY not
1: the residual stream before and after a weak layer is explained nearly as well; good SAEs have 1.04 and more."""

_ELSEWHERE = "it explains another place of its block better: it carries that hook's weights, or the wrong hook's name"
_NO_ERROR = "the splice makes no error: an SAE that passes its input on says nothing about it"
_NOT_TOPK = "a token has more active latents than this TopK SAE's k; it was not loaded as TopK"


class _Said(NamedTuple):
    """An outcome in words."""

    outcome: Outcome
    reason: str
    judged: JudgedValue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedLimit:
    """One limit of a check and what it found."""

    limit: Limit
    outcome: Outcome
    reason: str = ""
    """one line."""
    judged: JudgedValue | None = None
    """as in `Verdict`."""
    decision: Decision | None = None
    """as in `Verdict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict of one check on one SAE."""

    outcome: Outcome
    reason: str
    """one line: value, limit, interval and n, or why there are none."""
    limit: Limit | None
    """of several, the one that decides."""
    estimates: tuple[Estimate, ...]
    """without their samples."""
    decision: Decision | None
    """None: the limited measure is counted or exact, or was not measured."""
    judged: JudgedValue | None
    """the value on which the verdict rests; None: none was measured, or it is not finite."""
    is_final: bool
    """more of the corpus would not change the outcome."""
    others: tuple[JudgedLimit, ...] = ()
    """the other limits of the check."""


def judge_all(readings: Sequence[Reading], limits: Sequence[Limit], budget: Budget) -> Verdict:
    """
    Judge every limited measure of a check: the worst verdict is the check's, of equally bad ones the first.

    A measure that this kind of SAE does not have (`NotMeasured.is_final`) decides nothing while another is measured.
    """
    if len(limits) < 2:
        return judge(readings, limits[0] if limits else None, budget)
    each = [judge(readings, limit, budget) for limit in limits]
    absent = [one.outcome == "not_measured" and one.is_final for one in each]
    deciding = [one for one, is_absent in zip(each, absent, strict=True) if not is_absent] or each
    worst = min(deciding, key=lambda one: _WORST_FIRST.index(one.outcome))
    as_bad = [one for one in deciding if one.outcome == worst.outcome]
    is_final = (worst.outcome == "failed" and worst.is_final) or all(one.is_final for one in deciding)
    reasons = [_named_reason(one) for one in (as_bad if worst.outcome in ("failed", "inconclusive") else [worst])]
    return replace(
        worst,
        reason="; ".join(dict.fromkeys(reasons)),
        is_final=is_final and worst.outcome != "inconclusive",
        others=tuple(_judged_limit(one) for one in each if one is not worst),
    )


def _named_reason(of: Verdict) -> str:
    """The reason with the name of the measure, `l0 31.2 > 20 latents/token [30.1, 32.3], n 32`."""
    of_limit = of.judged is not None and of.judged.bound is None and of.outcome in ("passed", "failed", "inconclusive")
    return f"{of.judged.measure} {of.reason}" if of.judged is not None and of_limit else of.reason


def _judged_limit(of: Verdict) -> JudgedLimit:
    assert of.limit is not None
    return JudgedLimit(limit=of.limit, outcome=of.outcome, reason=of.reason, judged=of.judged, decision=of.decision)


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
        return _judge_range(readings, limit, budget)
    decision = None
    is_final = True
    if (said := _not_finite(readings) or _loading_error(readings, budget)) is None:
        decision = _decision(readings, limit, budget)
        said = _said(readings, limit, decision, budget)
        is_final = decision is not None or _is_never_measured(readings, limit)
        if said.outcome == "passed" and (doubt := _undecided_loading_error(readings, budget)) is not None:
            said = doubt
    return Verdict(
        outcome=said.outcome,
        reason=said.reason,
        limit=limit,
        estimates=tuple(replace(r, sample=None) for r in readings if isinstance(r, Estimate) and _finite(r)),
        decision=decision if decision is not None and decision.outcome == said.outcome else None,
        judged=said.judged,
        is_final=is_final and said.outcome != "inconclusive",
    )


def _judge_range(readings: Sequence[Reading], limit: Limit, budget: Budget) -> Verdict:
    upper, lower = ends = [judge(readings, end, budget) for end in limit.sides]
    worst = min(ends, key=lambda end: _WORST_FIRST.index(end.outcome))
    is_final = (worst.outcome == "failed" and worst.is_final) or all(end.is_final for end in ends)
    reason, found = worst.reason, worst.judged
    if worst.outcome == "passed" and upper.judged is not None and lower.judged is not None:
        found = judged.of_range(upper.judged, lower.judged)
        reason = found.against(limit, limit.check)
    return replace(worst, limit=limit, reason=reason, judged=found, is_final=is_final)


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


def _said(readings: Sequence[Reading], limit: Limit | None, decision: Decision | None, budget: Budget) -> _Said:
    """What the limited measure says; without a limit, the last one that was measured."""
    estimates = [r for r in readings if isinstance(r, Estimate)]
    if limit is None:
        if not estimates:
            return _Said("not_measured", next(r.reason for r in readings if isinstance(r, NotMeasured)))
        found = judged.judged_value(estimates[-1].measure, estimates, None, limit=None, outcome="reported")
        assert found is not None
        return _Said("reported", f"no limit is written: {found.alone()}", found)
    limited = next(r for r in readings if r.measure == limit.measure)
    if isinstance(limited, NotMeasured):
        return _Said("not_measured", limited.reason)
    assert isinstance(limited, Estimate)
    reason = _no_room_to_fail(readings, limit)
    too_few = limited.n < N_LEAST and not checks.named(limit.check).is_exact
    outcome: Outcome = "passed" if limit.allows(limited.value) else "failed"
    if reason is not None or decision is not None or too_few:
        outcome = "not_measured" if reason is not None else "inconclusive" if decision is None else decision.outcome
    n_listed = limited.sample.n_listed if isinstance(limited.sample, Answers) else None
    found = judged.judged_value(limit.measure, estimates, decision, limit=limit, outcome=outcome, n_listed=n_listed)
    assert found is not None
    if reason is None:
        reason = _reason(limited, found, decision, limit, budget)
        reason += f": fewer than {N_LEAST} decide nothing" if decision is None and too_few else ""
    return _Said(outcome, reason, found)


def _finite(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))


def describe(estimate: Estimate) -> str:
    """`ce_increase 0.0513 [0.0498, 0.0528] nats/token (n = 256)`."""
    value, low, high = (f"{x:.4g}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{estimate.measure} {value} [{low}, {high}] {estimate.unit} (n = {estimate.n})"


def _reason(limited: Estimate, found: JudgedValue, decision: Decision | None, limit: Limit, budget: Budget) -> str:
    """`2.06 > 0.0282 nats/token [1.44, 2.84], n 16`, and why that is inconclusive."""
    reason = found.against(limit, limit.check)
    if decision is None:
        return reason
    tested = limit
    if limited.proxy is not None:
        tested = _limit_of_proxy(limited.proxy, limit)
        reason += f"; tested by {tested.measure} {judged.of_decision(decision, tested).against(tested, limit.check)}"
    return f"{reason}: {_why_inconclusive(decision, tested, budget)}" if decision.outcome == "inconclusive" else reason


def _why_inconclusive(decision: Decision, limit: Limit, budget: Budget) -> str:
    n = decision.n_used
    if n < N_LEAST:
        return f"fewer than {N_LEAST} decide nothing"
    if limit.allows(decision.value) and decision.costliest_times is not None:
        if decision.costliest_times > budget.worst(limit):
            costs = f"sequence {decision.costliest} costs {decision.costliest_times:.3g} times the limit"
            return f"{costs}, and a pass allows {budget.worst(limit):g}"
    elif limit.allows(decision.value) and n < budget.n_least_to_pass:
        return f"fewer than {budget.n_least_to_pass} cannot pass"
    if decision.n_needed is None:
        return "the value is too close to the limit for any number of sequences"
    return f"the interval contains the limit; about {max(decision.n_needed, n + 1)} would settle it"


def _not_finite(readings: Sequence[Reading]) -> _Said | None:
    for reading in readings:
        if isinstance(reading, NotFinite):
            return _Said("failed", f"not finite: {reading.where}")
        if isinstance(reading, Estimate) and not _finite(reading):
            where = f"{reading.measure} is {reading.value} [{reading.low}, {reading.high}]"
            return _Said("failed", f"not finite: {where}")
    return None


def _loading_error(readings: Sequence[Reading], budget: Budget) -> _Said | None:
    """Evidence that the measurement or the loading is wrong."""
    most = next((r for r in readings if isinstance(r, Estimate) and r.measure == "l0_max_of_k"), None)
    if most is not None and most.value > 1:
        bound = _bound(checks.SPARSITY, most, "max", 1.0, _NOT_TOPK)
        found = judged.judged_value(most.measure, [most], None, limit=bound, outcome="failed")
        assert found is not None
        return _implausible("failed", replace(found, bound=bound), bound.source)
    for of, bound in _plausible_limits(readings):
        assert of.sample is not None
        decision = sequential.decide(of.sample, bound, budget)
        if decision.outcome == "failed":
            return _implausible("failed", judged.of_decision(decision, bound), bound.source)
    return None


def _implausible(outcome: Outcome, found: JudgedValue, why: str) -> _Said:
    assert found.bound is not None
    return _Said(outcome, f"{found.measure} {found.against(found.bound, found.bound.check)}: {why}", found)


def _undecided_loading_error(readings: Sequence[Reading], budget: Budget) -> _Said | None:
    """
    A plausible limit that is still undecided while more can be measured.

    WHY: otherwise a pass would depend on how much had been measured when it was reached.
    """
    for of, bound in _plausible_limits(readings):
        assert of.sample is not None
        is_all = of.sample.n + of.sample.n_without_value >= budget.n_most
        decision = None if is_all else sequential.decide(of.sample, bound, budget)
        if decision is not None and decision.outcome == "inconclusive":
            found = judged.of_decision(decision, bound)
            return _implausible("inconclusive", found, "undecided whether this is plausible")
    return None


def _plausible_limits(readings: Sequence[Reading]) -> Iterator[tuple[Estimate, Limit]]:
    """(estimate, limit) that every correctly loaded SAE keeps; the limit's source says what a breach means."""
    l0 = f"L0 is far from the one recorded for this SAE (plausible: {L0_BAND[0]:g} to {L0_BAND[1]:g} times)"
    rules: tuple[tuple[checks.Check, str, Literal["max", "min"], float, str], ...] = (
        (checks.CE_LOSS, "ce_increase", "min", -N_NATS_BELOW_CLEAN, _HELPS),
        (checks.OWN_LAYER, "own_place_ratio", "min", LEAST_PLACE_RATIO, _ELSEWHERE),
        (checks.PROPAGATION, "own_error", "min", LEAST_ERROR, _NO_ERROR),
        (checks.SPARSITY, "l0_ratio", "min", L0_BAND[0], l0),
        (checks.SPARSITY, "l0_ratio", "max", L0_BAND[1], l0),
    )
    estimates = {r.measure: r for r in readings if isinstance(r, Estimate) and r.sample is not None}
    for check, measure, kind, value, source in rules:
        if (of := estimates.get(measure)) is not None:
            yield of, _bound(check, of, kind, value, source)


def _bound(check: checks.Check, of: Estimate, kind: Literal["max", "min"], value: float, source: str) -> Limit:
    return Limit(
        check=check.name, measure=of.measure, kind=kind, value=value, unit=of.unit, source=source, where="the check"
    )


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
