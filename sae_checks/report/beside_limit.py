"""A judged value beside its limit, and how far it is beyond it."""

from __future__ import annotations

import math

from sae_checks.judging.limits import Limit
from sae_checks.record.results import Result
from sae_checks.report import wording

_N_DIGITS = range(3, 8)


def beside_limit(result: Result) -> str:
    """`0.51 > 0.3`, with as many digits as tell the two apart; empty: there is no value or no limit."""
    judged, limit = result.judged, _limit(result)
    if judged is None or limit is None:
        return ""
    side = _nearest_side(limit, judged.value)
    value, bound = _told_apart(judged.value, side.value)
    if judged.value == side.value or side.allows(judged.value):
        sign = "≤" if side.kind == "max" else "≥"
    else:
        sign = ">" if side.kind == "max" else "<"
    return f"{value} {sign} {bound}"


def excess(result: Result) -> float:
    """How far the value is beyond its limit, as a share of the limit; below 0 within it, -inf without a value."""
    judged, limit = result.judged, _limit(result)
    if judged is None or limit is None:
        return -math.inf
    return _excess(_nearest_side(limit, judged.value), judged.value)


def _limit(result: Result) -> Limit | None:
    """What the value was held against: the limit of the check, or what shows a loading error."""
    bound = None if result.judged is None else result.judged.bound
    return bound or result.limit


def _nearest_side(limit: Limit, value: float) -> Limit:
    return max(limit.sides, key=lambda side: _excess(side, value))


def _excess(side: Limit, value: float) -> float:
    beyond = value - side.value if side.kind == "max" else side.value - value
    return -math.inf if math.isnan(beyond) else beyond / (abs(side.value) or 1.0)


def _told_apart(value: float, bound: float) -> tuple[str, str]:
    """Both numbers as text, to three significant digits or to as many more as they need to differ."""
    shown = (wording.number(value), wording.number(bound))
    for n_digits in _N_DIGITS:
        if value == bound or shown[0] != shown[1]:
            break
        shown = (f"{value:.{n_digits}g}", f"{bound:.{n_digits}g}")
    return shown
