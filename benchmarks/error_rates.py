"""
The simulations of docs/statistics.md: python benchmarks/error_rates.py, some minutes.

The rule is the one of `sae_checks.judging.sequential`, the values are drawn as in the tests.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

import numpy as np
from builders import limit
from simulated import differences, increases, rates

from sae_checks.comparing.resampled_error_rates import ToPass, ratio_error_rates
from sae_checks.judging import betting
from sae_checks.judging.budget import ALPHA, Budget
from sae_checks.judging.limits import WORST_DIFFERENCE

N_REPLICATIONS = 4_000
N_CHECKS = 65
SHAPES = [("lognormal", 0.6), ("lognormal", 1.5), ("gamma", 1.0), ("contaminated", 0.3), ("one in fifty", 0.3)]


def costs() -> None:
    """False passes where the truth is the limit; passes, and the mean n, where it is below; false failures."""
    print("  N  decided by  costs              at limit     0.8      0.5      0.3   false fail")
    for n, bets in product((32, 64, 256), (True, False)):
        plan = Budget(n_planned=n, n_most=n, n_checks=N_CHECKS)
        for shape, cv in SHAPES:
            at_limit, *below = (
                rates(increases(shape, cv, k, n=n, n_replications=N_REPLICATIONS, seed=10), plan, bets=bets)
                for k in (1.0, 0.8, 0.5, 0.3)
            )
            passes = "".join(f"{found.passed:5.0%}{found.n_mean:4.0f}" for found in below)
            name = f"{'bet' if bets else 'bounds':10}  {shape} {cv:g}"
            print(f"{n:3}  {name:30} {at_limit.passed:6.1%} {passes}  {at_limit.failed:8.2%}")


def signed_differences() -> None:
    """Differences of either sign, in margins, with the guard of a comparison: passes where the mean is *k* margins."""
    print("\n  N  differences                   at margin  0.8   0.5   0.3     0    n")
    for n in (32, 64, 256):
        plan = Budget(n_planned=n, n_most=n, n_checks=N_CHECKS)
        to_pass = ToPass(guard=WORST_DIFFERENCE - 1 if plan.is_guarded else None)
        for name, noise in differences(n=n, n_replications=N_REPLICATIONS, seed=13):
            at_margin, *below = (ratio_error_rates(noise + k - 1, plan, to_pass) for k in (1.0, 0.8, 0.5, 0.3, 0.0))
            passes = "".join(f"{found.passed:6.0%}" for found in below)
            print(f"{n:3}  {name:30} {at_margin.passed:6.1%} {passes} {below[-1].n_mean:4.0f}")


def on_either_side(plan: Budget, what: str) -> None:
    """Verdicts, and what they cost, where the truth is *k* times the limit."""
    print(f"\n{what}\n\n| truth / limit | right | wrong | inconclusive | mean n |\n|---|---|---|---|---|")
    for k in (0.5, 0.8, 0.9, 1.1, 1.25, 2.0):
        values = increases("lognormal", 0.6, k, n=256, n_replications=N_REPLICATIONS, seed=11)
        found = rates(values, plan, bets=True)
        right, wrong = (found.passed, found.failed) if k < 1 else (found.failed, found.passed)
        print(f"| {k:g} | {right:.1%} | {wrong:.2%} | {1 - right - wrong:.1%} | {found.n_mean:.0f} |")


def bias_of_early_passes() -> None:
    """By how much the mean up to the deciding look is below that of all values, of what passes."""
    print("\n| N | truth / limit | bias of the value at a pass |\n|---|---|---|")
    for n, k in product((64, 256), (0.5, 0.6, 0.7, 0.8)):
        plan = Budget(n_planned=n, n_most=n, n_checks=N_CHECKS)
        values = increases("lognormal", 0.6, k, n=n, n_replications=N_REPLICATIONS, seed=14)
        looks = np.array(list(plan.looks(n)))
        capital = betting.log_capital_on_costs(values - 1, plan.worst(limit(value=1.0)))[:, looks - 1]
        has_passed = (capital >= -np.log(ALPHA)).any(axis=1)
        at = looks[(capital >= -np.log(ALPHA)).argmax(axis=1)]
        means = np.cumsum(values, axis=1)[np.arange(len(values)), at - 1] / at
        print(f"| {n} | {k:g} | {means[has_passed].mean() / k - 1:+.1%} of {has_passed.mean():.0%} |")


def answer_error_rates(n_listed: int | None, n: int = 1000) -> None:
    """Drops in accuracy where *n* passages are measured, of a list of *n_listed* or any number."""
    print(f"\n{n} passages of {n_listed or 'any number'}\n")
    print("| drop | limit | passed | failed | mean n |\n" + "|---" * 5 + "|")
    rng = np.random.default_rng(12)
    plan = Budget(n_planned=n, n_most=n, n_checks=N_CHECKS)
    looks = np.array(list(plan.looks(n)))
    for drop, most in ((0.05, 0.05), (0.1, 0.1), (0.0, 0.05), (0.025, 0.05), (0.05, 0.1), (0.1, 0.05), (0.2, 0.1)):
        lost, won = drop + 0.02, 0.02
        if n_listed is None:
            u = rng.random((1000, n))
            values = (u < lost).astype(np.int64) - (u > 1 - won)
        else:
            n_lost, n_won = round(lost * n_listed), round(won * n_listed)
            whole = np.r_[np.ones(n_lost), -np.ones(n_won), np.zeros(n_listed - n_lost - n_won)].astype(np.int64)
            values = np.array([rng.permutation(whole)[:n] for _ in range(1000)])
        against = betting.log_capital(values, most, n_listed)[:, looks - 1] >= -np.log(ALPHA)
        towards = betting.log_capital(-values, -most, n_listed)[:, looks - 1] >= -np.log(plan.alpha_to_fail)
        first = [np.where(each.any(axis=1), each.argmax(axis=1), len(looks)) for each in (against, towards)]
        used = np.r_[looks, n][np.minimum(*first)]
        passed, failed = (first[0] < first[1]).mean(), (first[1] < first[0]).mean()
        print(f"| {drop:g} | {most:g} | {passed:.1%} | {failed:.1%} | {used.mean():.0f} |")


if __name__ == "__main__":
    costs()
    signed_differences()
    on_either_side(Budget(n_planned=256, n_most=256, n_checks=N_CHECKS), f"{N_CHECKS} checks")
    bias_of_early_passes()
    answer_error_rates(None)
    answer_error_rates(5153)
