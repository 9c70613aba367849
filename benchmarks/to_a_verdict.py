"""
sae-checks until every SAE is decided, against `sae_lens.evals`, which measures all that was planned.

python benchmarks/to_a_verdict.py [--saes 13] [--planned 256] [--threads 2] [--quick]

The release of vs_saelens.py, and sequences of 128 tokens that its model itself has drawn. The limit on the CE increase
of each SAE is set from a few other sequences, so that its value is a half, or twice, of what is allowed. sae-checks
measures in rounds of 16 sequences, and an SAE leaves when its verdict is final. SAE Lens's time is that of a few
sequences and one SAE, scaled to all. How soon a verdict comes depends on how the increase varies between sequences:
docs/statistics.md has it for real text.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace

warnings.simplefilter("ignore")  # SAE Lens's and TransformerLens's own

import random_release
import torch
from random_release import Shape
from saelens_side import hooked, theirs
from timing import now
from work import Work, ours

from sae_checks import checks
from sae_checks.judging import corpus_readings, verdict
from sae_checks.judging.budget import Budget
from sae_checks.judging.limits import Limit
from sae_checks.losses import TextLosses
from sae_checks.measuring import corpus_pass
from sae_checks.measuring.scoring import Fault, round_ends

N_CONTEXT = 128
N_PILOT = 16
N_TIMED = 2
N_PER_ROUND = 16
TRUTH_OVER_LIMIT = (0.5, 2.0)


def limits(increases: list[float], k: float) -> list[Limit]:
    """By SAE, the limit of which its increase is *k* times."""
    return [
        Limit(
            check=checks.CE_LOSS.name,
            measure="ce_increase",
            kind="max",
            value=increase / k,
            unit="nats/token",
            source="a pilot",
            where="here",
        )
        for increase in increases
    ]


def until_decided(work: Work, allowed: list[Limit]) -> list[verdict.Verdict]:
    """The verdict on each SAE, from no more sequences than it takes."""
    n = len(work.sequences.rows)
    budget = Budget(n_planned=n, n_most=n, n_checks=len(work.saes) * sum(not check.is_exact for check in checks.CHECKS))

    def judged(i: int, losses: TextLosses | Fault) -> verdict.Verdict:
        assert isinstance(losses, TextLosses), losses
        return verdict.judge(corpus_readings.ce_loss(losses), allowed[i], budget)

    rounds = corpus_pass.text_rounds(
        work.model,
        [random_release.measured_sae(sae, n_context=N_CONTEXT) for sae in work.saes],
        work.sequences,
        n_batch_tokens=4096,
        progress=lambda *_: None,
        ends=round_ends(work.sequences.rows, N_PER_ROUND),
        ablates=False,
    )
    for sums in rounds:
        for i, one in enumerate(sums):
            if one.is_active:
                one.is_decided = judged(i, one.losses()).is_final
    return [judged(i, one.losses()) for i, one in enumerate(sums)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", type=int, default=13, help="how many, from the first layer on")
    parser.add_argument("--planned", type=int, default=256, help="sequences")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small model")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    small = Shape(n_layers=2, d_model=64, n_heads=2, n_vocabulary=512, n_positions=128, d_sae=512, l0=16)
    shape = small if asked.quick else Shape()
    raw = random_release.model(shape)
    work = Work(
        shape=shape,
        raw=raw,
        model=random_release.measured_model(raw, shape),
        hooked=hooked(raw, shape),
        saes=random_release.saes(raw, shape, shape.hooks[: asked.saes]),
        peer_at=(min(asked.saes, len(shape.hooks)) // 2,),
        sequences=random_release.own_sequences(raw, shape, n_sequences=asked.planned, n_context=N_CONTEXT),
    )
    n_saes = len(work.saes)
    few = replace(
        work, sequences=random_release.own_sequences(raw, shape, n_sequences=N_PILOT, n_context=N_CONTEXT, seed=7)
    )
    increases = [v.ce_spliced - v.ce_clean for v in ours(few, ablates=False)]
    print(f"| {n_saes} SAEs | of {asked.planned} sequences | verdicts | s | sae_lens.evals, s | times faster |")
    print("|---" * 6 + "|")
    for k in TRUTH_OVER_LIMIT:
        start = now()
        theirs(replace(work, sequences=few.sequences.first(N_TIMED, N_CONTEXT)))
        peer = (now() - start) * n_saes * asked.planned / N_TIMED
        start = now()
        found = until_decided(work, limits(increases, k))
        took = now() - start
        used = sorted(v.decision.n_used for v in found if v.decision is not None)
        outcomes = ", ".join(f"{sum(v.outcome == o for v in found)} {o}" for o in sorted({v.outcome for v in found}))
        told = f"{used[0]} to {used[-1]}" if used else "all"
        print(
            f"| value {k:g} times the limit | {told} | {outcomes} | {took:.0f} | {peer:.0f} | {peer / took:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
