"""
sae-checks against `sae_lens.evals`: same model, same SAEs, same tokens, in one process, in turn.

python benchmarks/vs_saelens.py [--context 128 1024] [--saes 13] [--rounds 3] [--threads 2] [--quick] [--profile]
python benchmarks/vs_saelens.py --stories DIR

GPT-2 small's architecture with random weights, SAEs of 24,576 latents at L0 ~ 60, float32. SAE Lens runs
`run_evals` once per SAE, with compute_ce_loss, compute_kl, compute_sparsity_metrics and compute_variance_metrics, on
batches of 2 x 128 or 1 x 1024 tokens. It cannot leave out its zero ablation; sae-checks is timed with and without one.
Each round times one side after the other, and the ratio told is the median over rounds. In the first round both sides
must agree on every value that is compared. With --threads 1 seconds are those of the process's own work, which
neighbours on a shared machine lengthen less than those of the clock.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

warnings.simplefilter("ignore")  # SAE Lens's and TransformerLens's own

import random_release
import saebench_side
import stories
import torch
from random_release import Shape
from saelens_side import agree, hooked, tell, theirs
from timing import matmul_rate, timed
from work import Values, Work, flop, ours

PEER = "sae_lens.evals"
SAEBENCH = "sae_bench core"
PEERS = (PEER, SAEBENCH)
BFLOAT16 = "sae-checks, bfloat16 model"


N_PROMPTS = {128: 2, 1024: 1}
"""per batch of SAE Lens, with random weights."""
N_STORIES_TOKENS = 512
"""per batch of SAE Lens with stories260K; of 4096 it takes a third longer."""
N_STORIES_BATCHES = 4
"""of SAE Lens, for each of --batches."""


def compare(work: Work, n_rounds: int, *, with_theirs: bool, ablates: bool, with_saebench: bool = False) -> None:
    sides = _sides(work, with_theirs=with_theirs, ablates=ablates, with_saebench=with_saebench)
    took: dict[str, list[float]] = {name: [] for name in sides}
    memory = dict.fromkeys(sides, 0.0)
    rates, shares = [], {name: [] for name in sides}
    for i in range(n_rounds):
        found: dict[str, list[Values]] = {}
        for name, run in sides.items():
            rates.append(matmul_rate(torch.float32))
            found[name], seconds, most = timed(run)
            seconds *= len(work.saes) / len(work.peer_at) if name in PEERS else 1
            took[name].append(seconds)
            memory[name] = max(memory[name], most)
            rate = flop(work, ablates="ablation" in name) / seconds
            shares[name].append(rate / max(rates[-1], matmul_rate(torch.float32)))
        if i == 0:
            _check(work, found)
        print(
            f"round {i + 1}: " + ", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in took.items()), flush=True
        )
    n = len(work.saes)
    print(
        f"\n| {n} SAEs, {work.n_tokens} tokens in sequences of {work.n_context} | s per SAE | SAE tokens/s | "
        "memory beyond model and SAEs, MiB | share of the matmul rate | times faster |"
    )
    print("|---" * 6 + "|")
    for name, seconds in took.items():
        middle = statistics.median(seconds)
        share = "" if name in PEERS else f"{statistics.median(shares[name]):.0%}"
        told = _times(seconds, took[PEER]) if PEER in took else ""
        rate = n * work.n_tokens / middle
        print(f"| {name} | {middle / n:.3f} | {rate:,.0f} | {memory[name]:,.0f} | {share} | {told} |")
    for name in [name for name in took if SAEBENCH in took and name != SAEBENCH]:
        print(f"\n{name}: {_times(took[name], took[SAEBENCH])} times as fast as {SAEBENCH}")
    in_bfloat16 = matmul_rate(torch.bfloat16)
    print(f"\nmatmul: {statistics.median(rates) / 1e9:.0f} GFLOP/s (in bfloat16 {in_bfloat16 / 1e9:.0f})")


def _sides(
    work: Work, *, with_theirs: bool, ablates: bool, with_saebench: bool
) -> dict[str, Callable[[], list[Values]]]:
    sides: dict[str, Callable[[], list[Values]]] = {"sae-checks": lambda: ours(work, ablates=False)}
    if ablates:
        sides["sae-checks, ablation too"] = lambda: ours(work, ablates=True)
    if work.in_bfloat16 is not None:
        narrow = replace(work, model=work.in_bfloat16)
        sides[BFLOAT16] = lambda: ours(narrow, ablates=False)
    if with_theirs:
        sides[PEER] = lambda: theirs(work)
    if with_saebench:
        sides[SAEBENCH] = lambda: saebench_side.core(work)
    return sides


def _check(work: Work, found: dict[str, list[Values]]) -> None:
    """Both sides agree, or it ends here; and what bfloat16 changes."""
    own = found["sae-checks"]
    if PEER in found:
        agree(work, own, found[PEER])
    if SAEBENCH in found:
        names, kl = saebench_side.NAMES, saebench_side.kl_of_scored
        agree(work, own, found[SAEBENCH], peer="SAEBench", names=names, kl=kl)
    if PEER in found:
        tell(own)
    if BFLOAT16 in found:
        pairs = zip(own, found[BFLOAT16], strict=True)
        bias = [(b.ce_spliced - b.ce_clean) - (a.ce_spliced - a.ce_clean) for a, b in pairs]
        print("change of the CE increase by bfloat16, nats/token: " + " ".join(f"{x:.1e}" for x in bias), flush=True)


def _times(seconds: list[float], of_peer: list[float]) -> str:
    """How many times faster, by round: the median, and the least and most."""
    ratio = [b / a for a, b in zip(seconds, of_peer, strict=True)]
    return f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"


def profile(work: Work) -> None:
    """Where the time of one sweep goes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watched

    with watched(activities=[ProfilerActivity.CPU]) as seen:
        ours(work, ablates=False)
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, nargs="+", help="default: 128 1024, with --stories 128 512")
    parser.add_argument("--saes", type=int, default=13, help="how many, spread over the layers")
    parser.add_argument("--peer-saes", type=int, help="how many of them SAE Lens evaluates, its time scaled to all")
    parser.add_argument("--bf16", action="store_true", help="also with a bfloat16 model: how fast, and what it changes")
    parser.add_argument("--no-ablation", action="store_true", help="do not time sae-checks with ablation as well")
    parser.add_argument("--batches", type=int, default=1, help="of SAE Lens: 2 x 128 or 1 x 1024 tokens each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a small model and narrow SAEs: does it run and agree?")
    parser.add_argument("--alone", action="store_true", help="time sae-checks only")
    parser.add_argument("--profile", action="store_true", help="tell where the time of sae-checks goes, and no more")
    parser.add_argument("--stories", type=Path, metavar="DIR", help="stories260K, its SAEs and text below DIR")
    parser.add_argument("--saebench", action="store_true", help="also against SAEBench's core evaluator (sae-bench)")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.saebench:
        saebench_side.check_installed()
    if asked.stories is not None:
        _tell_machine()
        _compare_stories(asked)
        return
    shape = Shape(n_layers=3, d_model=64, n_heads=4, n_vocabulary=1000, d_sae=512, l0=16) if asked.quick else Shape()
    hooks = shape.hooks
    chosen = tuple(hooks[i] for i in _spread(min(asked.saes, len(hooks)), len(hooks)))
    _tell_machine()
    raw = random_release.model(shape)
    model, saes = random_release.measured_model(raw, shape), random_release.saes(raw, shape, chosen)
    peer = None if asked.alone or asked.profile else hooked(raw, shape)
    narrow = random_release.measured_model(copy.deepcopy(raw).bfloat16(), shape) if asked.bf16 else None
    for n_context in asked.context or [128, 1024]:
        n_prompts = N_PROMPTS.get(n_context, 1)
        n_sequences = asked.batches * n_prompts
        made = random_release.sequences(shape, n_sequences=n_sequences, n_context=n_context)
        peer_at = _spread(min(asked.peer_saes or len(saes), len(saes)), len(saes))
        work = Work(shape=shape, raw=raw, model=model, hooked=peer, saes=saes, peer_at=peer_at, sequences=made)
        work = replace(work, in_bfloat16=narrow, n_prompts=n_prompts)
        print(f"\n## context {n_context}\n")
        if asked.profile:
            profile(work)
            continue
        with_saebench = asked.saebench and peer is not None
        compare(
            work,
            asked.rounds,
            with_theirs=peer is not None,
            ablates=not asked.no_ablation,
            with_saebench=with_saebench,
        )


def _compare_stories(asked: argparse.Namespace) -> None:
    """The real model and its real SAEs, on batches of as many tokens for every side."""
    found = stories.load(asked.stories)
    for n_context in asked.context or [128, found.shape.n_positions]:
        n_prompts = N_STORIES_TOKENS // n_context
        made = found.sequences(n_context=n_context, n_most=N_STORIES_BATCHES * asked.batches * n_prompts)
        n_prompts = min(n_prompts, len(made.rows))
        made = made.first(len(made.rows) // n_prompts * n_prompts, n_context)  # whole batches: SAE Lens takes no other
        work = Work(
            shape=found.shape,
            raw=found.hooked,
            model=found.model,
            hooked=found.hooked,
            saes=found.saes,
            peer_at=tuple(range(len(found.saes))),
            sequences=made,
            n_prompts=n_prompts,
            bos_id=found.model.tokenizer.bos_token_id,
        )
        print(f"\n## stories260K, context {n_context}\n")
        compare(work, asked.rounds, with_theirs=True, ablates=not asked.no_ablation, with_saebench=asked.saebench)


def _spread(n: int, n_all: int) -> tuple[int, ...]:
    """*n* of *n_all* indices, from the first to the last; of one the middle."""
    return tuple(round(i * (n_all - 1) / (n - 1)) for i in range(n)) if n > 1 else (n_all // 2,)


def _tell_machine() -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, commit {commit.stdout.strip()}, device cpu"
    )


if __name__ == "__main__":
    main()
