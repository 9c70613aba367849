"""
What it would cost to score fewer positions of each sequence: the variance of the CE increase, and the time saved.

python benchmarks/scored_positions.py [RELEASE [MODEL CORPUS]]

RELEASE (default: demo) is measured once, all of the plan. Then every second, fourth or eighth prediction within the
training context is kept, from a place drawn for each sequence, again and again. So many times more sequences would be
needed for an interval as narrow; all is told in times of what scoring every position takes. Time per sequence is that
of vs_saelens.py's release at 128 tokens, where the unembedding is 77 of 201 MFLOP per SAE and token.
"""

from __future__ import annotations

import sys

import numpy as np

from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.run.settle import settle

N_DRAWS = 40
UNEMBEDDING = 77 / 201


def variance(top: np.ndarray, n: np.ndarray) -> float:
    """Of the ratio of sums over sequences, times their number: *top* (n_sequences,) over *n*."""
    residual = top - top.sum() / n.sum() * n
    return float(residual.var(ddof=1) / n.mean() ** 2)


def main() -> None:
    places = dict(zip(("release", "model", "corpus"), sys.argv[1:] or ["demo"], strict=False))
    asked = settle(Options(**places, device="cpu", profile="full", n_study_sequences=0))
    executor, sae_ids = LocalExecutor(asked.plan), asked.plan.release.sae_ids
    rng = np.random.default_rng(0)
    print("| SAE | scored | variance | time per sequence | time to as narrow an interval |")
    print("|---" * 5 + "|")
    for sae_id in sae_ids:
        losses = executor.measure("text", sae_id, sae_ids).losses
        increase = losses.increase_nats[:, : losses.n_training_context_tokens].astype(float)
        increase = increase[np.isfinite(increase).any(1)]
        of_all = variance(np.nansum(increase, 1), np.isfinite(increase).sum(1))
        for k in (2, 4, 8):
            found = []
            for _ in range(N_DRAWS):
                offset = rng.integers(0, k, len(increase))
                kept = np.where((np.arange(increase.shape[1]) - offset[:, None]) % k == 0, increase, np.nan)
                found.append(variance(np.nansum(kept, 1), np.isfinite(kept).sum(1)))
            ratio, time = np.mean(found) / of_all, 1 - UNEMBEDDING * (1 - 1 / k)
            print(f"| {sae_id} | 1 of {k} | {ratio:.2f} | {time:.2f} | {ratio * time:.2f} |")


if __name__ == "__main__":
    main()
