"""
The simulations of docs/statistics.md: python benchmarks/error_rates.py, about a minute.

The rule is the one of `sae_checks.judging.sequential`, the values are drawn as in the tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

import numpy as np
from simulated import increases, rates

from sae_checks.judging import betting
from sae_checks.judging.budget import ALPHA, Budget

N_REPLICATIONS = 10_000
N_CHECKS = 65
SHAPES = [*(("lognormal", cv) for cv in (0.3, 0.6, 1.0, 1.5)), ("gamma", 1.0), ("gamma", 1.5), ("contaminated", 0.3)]


def rates_at_limit() -> None:
    """Wrong verdicts where the truth is the limit: of increases as they are, and mirrored, their tail on the left."""
    print(
        "\n| n | increases | false pass | false fail | mirrored: false pass | false fail |\n|---|---|---|---|---|---|"
    )
    for n in (64, 256):
        plan = Budget(n_planned=n, n_most=n, n_checks=N_CHECKS)
        for shape, cv in SHAPES:
            values = increases(shape, cv, 1.0, n=n, n_replications=N_REPLICATIONS, seed=10)
            found, mirrored = rates(values, plan), rates(2 - values, plan)
            of_rows = (found.passed, found.failed, mirrored.passed, mirrored.failed)
            print(f"| {n} | {shape} {cv:g} | " + " | ".join(f"{rate:.2%}" for rate in of_rows) + " |")


def on_either_side(plan: Budget, what: str) -> None:
    """Verdicts, and what they cost, where the truth is *k* times the limit."""
    print(f"\n{what}\n\n| truth / limit | right | wrong | inconclusive | mean n |\n|---|---|---|---|---|")
    for k in (0.5, 0.8, 0.9, 1.1, 1.25, 2.0):
        found = rates(increases("lognormal", 0.6, k, n=256, n_replications=N_REPLICATIONS, seed=11), plan)
        right, wrong = (found.passed, found.failed) if k < 1 else (found.failed, found.passed)
        print(f"| {k:g} | {right:.1%} | {wrong:.2%} | {1 - right - wrong:.1%} | {found.n_mean:.0f} |")


def answer_error_rates(n_listed: int | None, n: int = 1000) -> None:
    """Drops in accuracy where *n* passages are measured, of a list of *n_listed* or any number."""
    print(f"\n{n} passages of {n_listed or 'any number'}\n")
    print("| drop | limit | passed | failed | mean n |\n" + "|---" * 5 + "|")
    rng = np.random.default_rng(12)
    plan = Budget(n_planned=n, n_most=n, n_checks=N_CHECKS)
    looks = np.array(list(plan.looks(n)))
    for drop, limit in ((0.05, 0.05), (0.1, 0.1), (0.0, 0.05), (0.025, 0.05), (0.05, 0.1), (0.1, 0.05), (0.2, 0.1)):
        lost, won = drop + 0.02, 0.02
        if n_listed is None:
            u = rng.random((1000, n))
            values = (u < lost).astype(np.int64) - (u > 1 - won)
        else:
            n_lost, n_won = round(lost * n_listed), round(won * n_listed)
            whole = np.r_[np.ones(n_lost), -np.ones(n_won), np.zeros(n_listed - n_lost - n_won)].astype(np.int64)
            values = np.array([rng.permutation(whole)[:n] for _ in range(1000)])
        against = betting.log_capital(values, limit, n_listed)[:, looks - 1] >= -np.log(ALPHA)
        towards = betting.log_capital(-values, -limit, n_listed)[:, looks - 1] >= -np.log(plan.alpha_to_fail)
        first = [np.where(each.any(axis=1), each.argmax(axis=1), len(looks)) for each in (against, towards)]
        used = np.r_[looks, n][np.minimum(*first)]
        passed, failed = (first[0] < first[1]).mean(), (first[1] < first[0]).mean()
        print(f"| {drop:g} | {limit:g} | {passed:.1%} | {failed:.1%} | {used.mean():.0f} |")


if __name__ == "__main__":
    rates_at_limit()
    on_either_side(Budget(n_planned=256, n_most=256, n_checks=N_CHECKS), f"{N_CHECKS} checks")
    on_either_side(Budget(n_planned=256, n_most=256, n_checks=1), "one check")
    answer_error_rates(None)
    answer_error_rates(5153)
