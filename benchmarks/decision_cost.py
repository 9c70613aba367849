"""
What a verdict costs: sequences or items up to the look that decides, against all of them.

python benchmarks/decision_cost.py [RELEASE [MODEL CORPUS LAMBADA]] measures RELEASE (default: demo) once, all of the
plan. First it tells what each verdict of the release took. Then limits are set so that each SAE's value is half, four
fifths, five quarters or twice of what is allowed, its sequences are shuffled again and again, and it is told what a
verdict takes on average and how many agree with the value over all sequences.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from sae_checks import checks
from sae_checks.judging import answer_readings, corpus_readings, sequential
from sae_checks.judging.budget import Budget
from sae_checks.judging.estimates import Estimate, Reading
from sae_checks.judging.limits import Limit
from sae_checks.judging.samples import Answers, Difference, ExplainedVariance, Ratio, Sample
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.run.settle import Request, settle

N_SHUFFLES = 50
TRUTH_OVER_LIMIT = (0.5, 0.8, 1.25, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One SAE and check."""

    estimate: Estimate
    limit: Limit
    budget: Budget


def main() -> None:
    places = dict(zip(("release", "model", "corpus", "lambada"), sys.argv[1:] or ["demo"], strict=False))
    asked = settle(Options(**places, device="cpu", profile="full"))
    cases = list(_cases(asked))
    print("| SAE | check | limit | value | decided at | of | fewer | agrees |\n|---|---|---|---|---|---|---|---|")
    for sae_id, case in cases:
        found, n = sequential.decide(case.estimate.sample, case.limit, case.budget), case.estimate.n
        agrees: object = case.limit.allows(case.estimate.value) == (found.outcome == "passed")
        agrees = agrees if found.outcome != "inconclusive" else "inconclusive"
        told = f"{case.limit.check} | {case.limit.value:g} | {case.estimate.value:.4g} | {found.n_used} | {n}"
        print(f"| {sae_id} | {told} | {n / found.n_used:.1f}x | {agrees} |")
    print("\n| check | truth / limit | mean n | of | fewer | agree | disagree | inconclusive |\n" + "|---" * 8 + "|")
    for check in dict.fromkeys(case.limit.check for _, case in cases):
        for k in TRUTH_OVER_LIMIT:
            _tell(check, k, [case for _, case in cases if case.limit.check == check])


def _cases(asked: Request):
    executor, sae_ids = LocalExecutor(asked.plan), asked.plan.release.sae_ids
    options, n_checks = asked.plan.options, asked.plan.n_checks
    for sae_id in sae_ids:
        text, items = executor.measure("text", sae_id, sae_ids), executor.measure("lambada", sae_id, sae_ids)
        readings: dict[str, tuple[int, tuple[Reading, ...]]] = {
            checks.CE_LOSS.name: (options.n_sequences, corpus_readings.ce_loss(text.losses)),
            checks.LONG_CONTEXT.name: (options.n_sequences, corpus_readings.long_context(text.losses)),
            checks.SPARSITY.name: (options.n_sequences, corpus_readings.sparsity(text.losses)),
            checks.LAMBADA.name: (
                options.n_items,
                answer_readings.lambada(items.losses, n_listed=items.provenance.corpus.n_listed),
            ),
        }
        if asked.plan.cbt is not None:
            queries = executor.measure("cbt", sae_id, sae_ids)
            readings[checks.CBT.name] = (
                options.n_queries,
                answer_readings.cbt(queries.losses, n_listed=queries.provenance.corpus.n_listed),
            )
        for name, (n_planned, of_check) in readings.items():
            limit = asked.limits[sae_id, name][0]
            found = next(r for r in of_check if limit is not None and r.measure == limit.measure)
            if isinstance(found, Estimate) and found.sample is not None:
                budget = Budget(n_planned=n_planned, n_most=found.n + found.sample.n_without_value, n_checks=n_checks)
                yield sae_id, Case(estimate=found, limit=limit, budget=budget)


def _tell(check: str, k: float, cases: list[Case]) -> None:
    counts, used, fixed = defaultdict(int), [], []
    rng = np.random.default_rng(0)
    for case in cases:
        best = 1.0 if case.limit.measure == "explained_variance" else 0.0
        badness = abs(case.estimate.value - best)
        if (case.estimate.value - best) * (1 if case.limit.kind == "max" else -1) <= 0 or (badness / k >= 1 and best):
            continue  # better than exact: there is no limit that it half meets
        limit = replace(case.limit, value=best + (1 if case.limit.kind == "max" else -1) * badness / k)
        for _ in range(N_SHUFFLES):
            shuffled = _reordered(case.estimate.sample, rng.permutation(case.estimate.n))
            found = sequential.decide(shuffled, limit, case.budget)
            is_right = found.outcome == ("passed" if k < 1 else "failed")
            counts["inconclusive" if found.outcome == "inconclusive" else "agree" if is_right else "disagree"] += 1
            used.append(found.n_used)
            fixed.append(case.estimate.n)
    if not used:
        return
    shares = " | ".join(f"{counts[name] / len(used):.1%}" for name in ("agree", "disagree", "inconclusive"))
    fewer = np.mean(fixed) / np.mean(used)
    print(f"| {check} | {k:g} | {np.mean(used):.0f} | {np.mean(fixed):.0f} | {fewer:.1f}x | {shares} |")


def _reordered(sample: Sample | Answers | None, order: np.ndarray) -> Sample | Answers:
    if isinstance(sample, Answers):
        return replace(sample, values=sample.values[order])
    if isinstance(sample, Difference):
        return replace(sample, of=_reordered(sample.of, order), less=_reordered(sample.less, order))
    names = (
        ("error_squared", "norm_squared", "sum", "n_tokens")
        if isinstance(sample, ExplainedVariance)
        else ("numerators", "denominators")
    )
    assert isinstance(sample, ExplainedVariance | Ratio)
    return replace(sample, **{name: getattr(sample, name)[order] for name in names})


if __name__ == "__main__":
    main()
