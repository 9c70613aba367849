"""
Sequential tests of a mean by betting: exact at every sample size, for answers and for costs with a known largest one.

A bettor who claims that the mean is below a limit bets a share of their capital on every item. If the claim is wrong,
the capital ever reaches 20 times its start with a probability of at most 1/20 (Ville's inequality). So the claim may be
accepted whenever the capital reaches 20. Nothing is asymptotic and no variance is estimated: with rare changes of
answers, or with rare costs, an estimated variance is zero until the first.

Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (arXiv 2010.09686); without
replacement their Confidence sequences for sampling without replacement (arXiv 2006.04347).
"""

from __future__ import annotations

import math

import numpy as np

from sae_checks.losses import Counts, Floats

BETS = np.geomspace(0.1, 0.95, 8)  # (n_bets,) shares of the largest bet; each has an eighth of the capital
MOST = 0.95
"""share of the bet that could lose everything."""
_NEAREST = 1e-9
"""least distance of a limit to -1 and 1. WHY: at these there is nothing left to bet on."""


def log_capital(values: Counts, limit: float, n_listed: int | None) -> Floats:
    """
    The logarithm of the capital after each value, for a bet that the mean is below *limit*.

    To bet that the mean is above a limit, negate values and limit.

    Args:
        values: (..., n), each from -1 to 1, in the order of the plan.
        limit: of the mean.
        n_listed: items of the list from which *values* are drawn without replacement; None: with replacement.

    Returns:
        (..., n); infinite once the remaining items of the list cannot bring the mean up to the limit.
    """
    limit = min(max(limit, _NEAREST - 1), 1 - _NEAREST)
    expected = _expected(values, limit, n_listed)[..., None]  # (..., n, 1)
    certain = expected > 1  # WHY: no item can be above 1, so the mean cannot be the limit
    room = np.where(certain, 1.0, 1 - expected)
    bets = np.minimum(BETS / (1 - limit), MOST / np.maximum(room, _NEAREST))  # (..., n, n_bets)
    gains = np.where(certain, 0.0, np.log1p(-bets * (values[..., None] - np.where(certain, 0.0, expected))))
    capital = _mixed(gains)
    is_certain = np.maximum.accumulate(certain[..., 0], axis=-1)
    return np.asarray(np.where(is_certain, math.inf, capital), dtype=np.float64)


def log_capital_on_costs(excesses: Floats, worst: float) -> Floats:
    """
    The logarithm of the capital after each sequence, for a bet that the mean cost is below a limit.

    Args:
        excesses: (..., n), what each sequence costs beyond the limit, in limits.
        worst: how many times the limit a sequence may cost at most.

    Returns:
        (..., n); -inf from the first sequence on that costs more.
    """
    is_beyond = excesses > worst - 1
    # TRAP: a factor of 0 in place of a negative one would go on betting with what such a sequence had taken
    capital = _mixed(gains(np.where(is_beyond, 0.0, excesses), worst))
    return np.asarray(np.where(np.maximum.accumulate(is_beyond, axis=-1), -math.inf, capital), dtype=np.float64)


def gains(excesses: Floats, worst: float) -> Floats:
    """The logarithm of the factor by which each sequence multiplies each bet's capital; (..., n, n_bets)."""
    return np.asarray(np.log1p(-BETS / (worst - 1) * excesses[..., None]), dtype=np.float64)


def _mixed(gains: Floats) -> Floats:
    """The logarithm of the capital after each value, all bets together, from *gains* (..., n, n_bets); (..., n)."""
    of_bets = np.cumsum(gains, axis=-2)
    most = of_bets.max(axis=-1)
    return np.asarray(most + np.log(np.exp(of_bets - most[..., None]).mean(axis=-1)), dtype=np.float64)


def _expected(values: Counts, limit: float, n_listed: int | None) -> Floats:
    """The expected value of each item given those before it, if the mean were *limit*; (..., n)."""
    if n_listed is None:
        return np.full(values.shape, limit)
    n_before = np.arange(values.shape[-1])
    before = np.cumsum(values, axis=-1) - values
    return np.asarray((n_listed * limit - before) / (n_listed - n_before), dtype=np.float64)


def upper_bound(values: Counts, alpha: float, n_listed: int | None) -> float:
    """The upper bound on the mean at level *alpha*, given *values* (n,); at most 1."""
    low, high = -1.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        enough = log_capital(values, middle, n_listed)[-1] >= -math.log(alpha)
        low, high = (low, middle) if enough else (middle, high)
    return high
