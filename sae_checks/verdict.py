"""Readings x limit -> what follows. The only room that decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sae_checks import checks
from sae_checks.stats import Estimate, NotFinite, NotMeasured, Reading
from sae_checks.thresholds import Limit

Outcome = Literal["passed", "failed", "inconclusive", "not_measured", "error"]

N_LEAST = 8
"""Sequences or items below which no check is decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one check says of one SAE."""

    outcome: Outcome
    reason: str
    """one line: measure, value, interval, n and limit, or why there is none."""
    limit: Limit
    estimates: tuple[Estimate, ...]


def judge(readings: Sequence[Reading], limit: Limit) -> Verdict:
    """
    Whether the limited measure is within *limit*.

    In this order: anything not finite fails; a limited measure that was not measured is not judged; fewer than N_LEAST
    sequences or items are inconclusive; then `value <= limit` (or >=) decides, and an interval that holds the limit is
    said in the reason. A drop in accuracy is only judged where the clean accuracy leaves room to exceed the limit. An
    exact check is decided by its value, however few there are.
    """

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        estimates = tuple(r for r in readings if isinstance(r, Estimate) and _finite(r))
        return Verdict(outcome=outcome, reason=reason, limit=limit, estimates=estimates)

    for reading in readings:
        if isinstance(reading, NotFinite):
            return verdict("failed", f"not finite: {reading.where}")
        if isinstance(reading, Estimate) and not _finite(reading):
            return verdict(
                "failed", f"not finite: {reading.measure} is {reading.value} [{reading.low}, {reading.high}]"
            )
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


def _no_room_to_fail(readings: Sequence[Reading], limit: Limit) -> str | None:
    """
    A check that cannot fail is no check: accuracy can drop by no more than it was.

    The clean accuracy, at the lower end of its interval, must be at least twice the limit.
    """
    if limit.measure != "accuracy_drop" or limit.kind != "max":
        return None
    clean = next((r for r in readings if r.measure == "accuracy_clean"), None)
    if not isinstance(clean, Estimate) or clean.low >= 2 * limit.value:
        return None
    return (
        f"clean accuracy too low: {spoken(clean)}, and a drop can only be judged where the lower end is at least twice "
        f"the limit of {limit.value:g}"
    )
