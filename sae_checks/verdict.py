"""Readings x limit -> what follows. The only room that decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sae_checks import checks
from sae_checks.stats import Estimate, NotFinite, NotMeasured, Reading
from sae_checks.thresholds import Limit

Outcome = Literal["passed", "failed", "inconclusive", "not_measured", "reported", "error"]

N_LEAST = 8
"""Sequences or items below which no check is decided."""

N_NATS_BELOW_CLEAN = 0.01
"""Nats per token by which a splice may seem to help before the measurement is doubted. In aggregate a reconstruction
does not predict better than what it reconstructs; an exact one is 1e-5 away from clean at most."""

L0_BAND = (0.5, 2.0)
"""Measured over recorded L0. Another corpus moves L0 by a tenth; an architecture that was taken for another (a lost
threshold, TopK as ReLU) multiplies it, and may explain more variance for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one check says of one SAE."""

    outcome: Outcome
    reason: str
    """one line: measure, value, interval, n and limit, or why there is none."""
    limit: Limit | None
    estimates: tuple[Estimate, ...]


def judge(readings: Sequence[Reading], limit: Limit | None) -> Verdict:
    """
    Whether the limited measure is within *limit*; without one there is nothing to judge, and what was measured is told.

    In this order: anything not finite fails; so does what cannot be right (a splice that helps, more latents than a
    TopK SAE's k, an L0 far from the recorded one); a limited measure that was not measured is not judged; fewer than
    N_LEAST sequences or items are inconclusive; then `value <= limit` (or >=) decides, and an interval that holds the
    limit is said in the reason. A drop in accuracy is only judged where the clean accuracy leaves room to exceed it. An
    exact check is decided by its value, however few there are.
    """

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        estimates = tuple(r for r in readings if isinstance(r, Estimate) and _finite(r))
        return Verdict(outcome=outcome, reason=reason, limit=limit, estimates=estimates)

    if reason := _not_finite(readings) or _cannot_be_right(readings):
        return verdict("failed", reason)
    if limit is None:
        known = [spoken(r) for r in readings if isinstance(r, Estimate)]
        why = [r.reason for r in readings if isinstance(r, NotMeasured)]
        told = f"no limit is written: {', '.join(known[-2:])}" if known else why[0]
        return verdict("reported" if known else "not_measured", told)
    limited = next(r for r in readings if r.measure == limit.measure)
    if isinstance(limited, NotMeasured):
        return verdict("not_measured", limited.reason)
    assert isinstance(limited, Estimate)
    if reason := _no_room_to_fail(readings, limit):
        return verdict("not_measured", reason)
    is_exact = checks.named(limit.check).is_exact
    if limited.n < N_LEAST and not is_exact:
        return verdict("inconclusive", f"{spoken(limited)}: fewer than {N_LEAST}; limit {limit}")
    reason = f"{spoken(limited)}, limit {limit}"
    if limited.low <= limit.value <= limited.high and not is_exact:
        reason += " (the interval holds the limit: more sequences or items would settle it)"
    return verdict("passed" if limit.allows(limited.value) else "failed", reason)


def _finite(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))


def spoken(estimate: Estimate) -> str:
    """`ce_increase 0.0513 [0.0498, 0.0528] nats/token (n = 256)`."""
    value, low, high = (f"{x:.4g}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{estimate.measure} {value} [{low}, {high}] {estimate.unit} (n = {estimate.n})"


def _not_finite(readings: Sequence[Reading]) -> str | None:
    for reading in readings:
        if isinstance(reading, NotFinite):
            return f"not finite: {reading.where}"
        if isinstance(reading, Estimate) and not _finite(reading):
            return f"not finite: {reading.measure} is {reading.value} [{reading.low}, {reading.high}]"
    return None


def _cannot_be_right(readings: Sequence[Reading]) -> str | None:
    """What says that the measurement or the loading is wrong, be the limited measure as good as it may."""
    estimates = {r.measure: r for r in readings if isinstance(r, Estimate)}
    increase, most, ratio = (estimates.get(m) for m in ("ce_increase", "l0_max_of_k", "l0_ratio"))
    if increase is not None and increase.n >= N_LEAST and increase.high < -N_NATS_BELOW_CLEAN:
        return (
            f"{spoken(increase)}: the model predicts better with the splice than without. Either clean and spliced are "
            "not paired, or this text is foreign to the model; neither is a pass"
        )
    if most is not None and most.value > 1:
        return f"{spoken(most)}: a token has more active latents than this TopK SAE's k; it is run as something else"
    if ratio is not None and ratio.n >= N_LEAST and (ratio.high < L0_BAND[0] or ratio.low > L0_BAND[1]):
        return f"{spoken(ratio)}: L0 is far from the one recorded for this SAE ({L0_BAND[0]:g} to {L0_BAND[1]:g} of it)"
    return None


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
