"""The one value of a check that is shown everywhere, with the interval on which its verdict rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sae_checks import checks
from sae_checks.fields import Count
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.limits import Limit
from sae_checks.judging.sequential import Decision

_N_DIGITS, _N_DIGITS_MOST = 3, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedValue:
    """A value as the verdict saw it: message, table, JUnit and report show it and no other."""

    measure: str
    value: float
    low: float | None
    high: float | None
    """null: there is no bound on this side."""
    unit: str
    n: Count
    """sequences or items that the value is of."""
    is_exact: bool = False
    """whether the value has no error: it was counted, or the whole list was measured."""
    n_most: Count | None = None
    """sequences or items of the plan, where the verdict fell earlier: then the value is biased away from the limit."""
    is_whole_list: bool = False
    """whether every item of the list was measured."""
    bound: Limit | None = None
    """what the value was held against, where that is not the check's limit: it is evidence of a loading error."""

    @property
    def is_early(self) -> bool:
        """Whether the value is of a run that stopped because it was good, or bad, enough."""
        return self.n_most is not None

    def certainty(self, check: str) -> str:
        """`[0.1, 0.2], n 32 of 256`, `exact: all 743 passages` or `counted in 32 sequences`."""
        return self._certainty(checks.named(check).sampled, _N_DIGITS)

    def alone(self) -> str:
        """`ce_increase 2.06 nats/token [1.44, 2.84], n 16`, where there is no limit."""
        return f"{self.measure} {self.value:.{_N_DIGITS}g} {self.unit} {self._certainty('sequences', _N_DIGITS)}"

    def against(self, limit: Limit, check: str) -> str:
        """`2.06 > 0.0282 nats/token [1.44, 2.84], n 16`, with as many digits as it takes to tell value and limit."""
        n_digits = self._n_digits(limit)
        value, unit = f"{self.value:.{n_digits}g}", "" if self.unit == "fraction" else f" {self.unit}"
        certainty = self._certainty(checks.named(check).sampled, n_digits)
        separator = "" if not certainty else " " if certainty.startswith("[") else ", "
        return f"{value} {_relation(self.value, limit)}{unit}{separator}{certainty}"

    def _certainty(self, sampled: str, n_digits: int) -> str:
        if self.is_whole_list:
            return f"exact: all {self.n} {sampled}"
        if self.is_exact and not sampled:
            return ""
        if self.is_exact:
            return f"counted in {self.n} {sampled}"
        n = f"n {self.n} of {self.n_most}" if self.is_early else f"n {self.n}"
        if self.low is None and self.high is None:
            return n
        low = "-inf" if self.low is None else f"{self.low:.{n_digits}g}"
        high = "inf" if self.high is None else f"{self.high:.{n_digits}g}"
        return f"[{low}, {high}], {n}"

    def _n_digits(self, limit: Limit) -> int:
        """Significant digits that show value and interval on the same side of the limit as they are."""
        numbers = [x for x in (self.value, self.low, self.high) if x is not None]
        bounds = [side.value for side in limit.sides]
        for n_digits in range(_N_DIGITS, _N_DIGITS_MOST):
            shown = [float(f"{x:.{n_digits}g}") for x in numbers]
            if all((x > b, x < b) == (s > b, s < b) for x, s in zip(numbers, shown, strict=True) for b in bounds):
                return n_digits
        return _N_DIGITS_MOST


def judged_value(
    measure: str,
    estimates: Sequence[Estimate],
    decision: Decision | None,
    *,
    limit: Limit | None,
    outcome: str,
    n_listed: int | None = None,
) -> JudgedValue | None:
    """
    The value of *measure* as a verdict with *outcome* saw it.

    Args:
        measure: the limited one; without a limit, the one to show.
        estimates: everything that was measured.
        decision: what the verdict rests on; None: the value alone.
        limit: of the check.
        outcome: of the verdict.
        n_listed: items of the whole list that the check takes its items from; None: unknown, or there is none.

    Returns:
        The value, with the interval of the decision. Without a decision it has the descriptive interval, unless that
        contradicts the outcome; a measure that a proxy was tested for has none. None: it was not measured.
    """
    of = next((estimate for estimate in estimates if estimate.measure == measure), None)
    if of is None:
        return None
    found = JudgedValue(
        measure=measure,
        value=of.value,
        low=of.low,
        high=of.high,
        unit=of.unit,
        n=of.n,
        is_exact=bool(of.low == of.value == of.high),  # bool: the numbers may be of NumPy
    )
    if decision is None:
        is_contradiction = limit is not None and not _agrees(found, limit, outcome)
        return replace(found, low=None, high=None) if is_contradiction else found
    if decision.measure != measure:
        return replace(found, low=None, high=None, is_exact=False)
    is_whole_list = decision.n_used == n_listed
    return replace(
        found,
        value=decision.value,
        low=decision.low,
        high=decision.high,
        n=decision.n_used,
        n_most=decision.n_most if decision.is_early else None,
        is_exact=is_whole_list,
        is_whole_list=is_whole_list,
    )


def _agrees(found: JudgedValue, limit: Limit, outcome: str) -> bool:
    """Whether the interval of *found* lies to *limit* as *outcome* says."""
    if outcome not in ("passed", "failed", "inconclusive") or found.low is None or found.high is None:
        return True
    if outcome == "passed":
        bad_ends = {"max": found.high, "min": found.low}
        return all(side.allows(found.value) and side.allows(bad_ends[side.kind]) for side in limit.sides)
    is_outside = any(not side.allows(found.low if side.kind == "max" else found.high) for side in limit.sides)
    return is_outside == (outcome == "failed")


def of_decision(decision: Decision, bound: Limit) -> JudgedValue:
    """What *decision* saw of a measure that it held against *bound*."""
    return JudgedValue(
        measure=decision.measure,
        value=decision.value,
        low=decision.low,
        high=decision.high,
        unit=bound.unit,
        n=decision.n_used,
        n_most=decision.n_most if decision.is_early else None,
        bound=bound,
    )


def of_range(upper: JudgedValue, lower: JudgedValue) -> JudgedValue:
    """
    The value of a measure that is within a range, of the later of the two decisions that found it below and above.

    Each end of its interval is that of the decision that tested it.
    """
    later, low, high = max(upper, lower, key=lambda side: side.n), lower.low, upper.high
    return replace(
        later,
        low=None if low is None else min(low, later.value),
        high=None if high is None else max(high, later.value),
    )


def _relation(value: float, limit: Limit) -> str:
    """`> 0.3`: how *value* lies to the limit."""
    if limit.floor is not None and limit.allows(value):
        return f"in {_plain(limit.floor)} to {_plain(limit.value)}"
    side = next((side for side in limit.sides if not side.allows(value)), limit.sides[0])
    sign = (("<=", ">") if side.kind == "max" else (">=", "<"))[not side.allows(value)]
    return f"{sign} {_plain(side.value)}"


def _plain(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
