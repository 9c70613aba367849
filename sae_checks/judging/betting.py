"""
Right or wrong, item by item -> how strongly that speaks against a limit, exactly and whenever one looks.

Who believes that the mean is on one side of the limit bets a share of what they have on every item. If they are wrong,
their capital grows twentyfold with a probability of at most one in twenty (Ville's inequality), however often one
looks. Nothing is asymptotic and no variance is estimated: of rare flips a plug-in variance is zero until the first.

Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (arXiv 2010.09686); without
replacement their Confidence sequences for sampling without replacement (arXiv 2006.04347).
"""

from __future__ import annotations

import math

import numpy as np

from sae_checks.losses import Counts, Floats

BETS = np.geomspace(0.1, 0.95, 8)  # (n_bets,) of the most that can be bet; each has an eighth of the capital
MOST = 0.95
"""Of what would ruin whoever loses the bet."""
_NEAREST = 1e-9
"""No limit is nearer to -1 or 1: at them nothing is left to bet on."""


def log_capital(values: Counts, limit: float, n_listed: int | None) -> Floats:
    """
    The logarithm of the capital, after each of *values*, of who bets that their mean is below *limit*.

    Args:
        values: (..., n), each from -1 to 1, in the order of the plan.
        limit: of the mean. For who bets that the mean is above it: both negated.
        n_listed: items of the list that *values* are drawn from without replacement; None: with replacement.

    Returns:
        (..., n); infinite once no further item of the list can bring the mean up to the limit.
    """
    limit = min(max(limit, _NEAREST - 1), 1 - _NEAREST)
    expected = _expected(values, limit, n_listed)[..., None]  # (..., n, 1) of the next item, were the mean the limit
    certain = expected > 1  # no item can be as bad as it would have to be
    room = np.where(certain, 1.0, 1 - expected)
    bets = np.minimum(BETS / (1 - limit), MOST / np.maximum(room, _NEAREST))  # (..., n, n_bets)
    gains = np.where(certain, 0.0, np.log1p(-bets * (values[..., None] - np.where(certain, 0.0, expected))))
    of_bets = np.cumsum(gains, axis=-2)
    most = of_bets.max(axis=-1)
    capital = most + np.log(np.exp(of_bets - most[..., None]).mean(axis=-1))
    is_certain = np.maximum.accumulate(certain[..., 0], axis=-1)
    return np.asarray(np.where(is_certain, math.inf, capital), dtype=np.float64)


def _expected(values: Counts, limit: float, n_listed: int | None) -> Floats:
    if n_listed is None:
        return np.full(values.shape, limit)
    n_before = np.arange(values.shape[-1])
    before = np.cumsum(values, axis=-1) - values
    return np.asarray((n_listed * limit - before) / (n_listed - n_before), dtype=np.float64)


def end(values: Counts, alpha: float, n_listed: int | None) -> float:
    """The lowest limit that all of *values* (n,) together speak against at *alpha*; at most 1."""
    low, high = -1.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        enough = log_capital(values, middle, n_listed)[-1] >= -math.log(alpha)
        low, high = (low, middle) if enough else (middle, high)
    return high
