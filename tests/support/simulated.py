"""What a decision comes to over many replications at once: for the tests and for docs/statistics.md."""

import math

import numpy as np
from builders import limit

from sae_checks.comparing import resampled_error_rates
from sae_checks.comparing.resampled_error_rates import ErrorRates, ToPass
from sae_checks.judging.budget import Budget

LIMIT = 1.0


def increases(shape, cv, mean, *, n, n_replications, seed):
    """(replications, n) increases per sequence with that mean and coefficient of variation."""
    rng = np.random.default_rng(seed)
    size = (n_replications, n)
    if shape == "lognormal":
        variance = math.log1p(cv**2)
        return mean * rng.lognormal(-variance / 2, math.sqrt(variance), size)
    if shape == "gamma":
        return mean * rng.gamma(1 / cv**2, cv**2, size)
    # one sequence in twenty costs ten times as much as the others, or one in fifty 25 times
    share, times = {"contaminated": (0.05, 10.0), "one in fifty": (0.02, 25.0)}[shape]
    base = np.where(rng.random(size) < share, times, 1.0) / (1 + share * (times - 1))
    return mean * base * np.exp(cv * rng.standard_normal(size) - cv**2 / 2)


def differences(*, n, n_replications, seed):
    """(name, (replications, n) differences of either sign whose mean is 0), in margins."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_t(5, (n_replications, n))
    rare = np.where(rng.random(noise.shape) < 0.05, 5.0, 0.0) - 0.25
    yield "Student's t, 5 degrees", noise
    yield "one in twenty 5 margins worse", rare + 0.3 * noise
    yield "one in twenty 5 margins better", -rare


def rates(values, budget: Budget, *, bets=False, guards=True) -> ErrorRates:
    """
    The rule of `sequential.decide` for costs whose ideal value is 0, against LIMIT, in all replications at once.

    By the t-mixture, which may have a guard, or by the bet if *bets*.
    """
    worst = budget.worst(limit(value=LIMIT))
    guard = (worst - 1) * LIMIT if budget.is_guarded and guards else None
    to_pass = ToPass(bet_unit=LIMIT, worst=worst) if bets else ToPass(guard=guard)
    return resampled_error_rates.ratio_error_rates(values - LIMIT, budget, to_pass)
