"""
sae-checks against `sae_lens.evals`: same model, same SAEs, same tokens, in one process, in turn.

python benchmarks/vs_saelens.py [--context 128 1024] [--saes 13] [--rounds 3] [--threads 2] [--quick] [--profile]

GPT-2 small's architecture with random weights, SAEs of 24,576 latents at L0 ~ 60, float32. SAE Lens runs
`run_evals` once per SAE, with compute_ce_loss, compute_kl, compute_sparsity_metrics and compute_variance_metrics, on
batches of 2 x 128 or 1 x 1024 tokens. It cannot leave out its zero ablation; sae-checks is timed with and without one.
Each round times one side after the other, and the ratio told is the median over rounds. In the first round both sides
must agree on every value that is compared. With --threads 1 seconds are those of the process's own work, which
neighbours on a shared machine lengthen less than those of the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import platform
import resource
import statistics
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")  # SAE Lens's and TransformerLens's own

import numpy as np
import random_release
import torch
from random_release import Shape

from sae_checks import measure
from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import TextLosses
from sae_checks.model.hugging_face import HuggingFaceModel
from sae_checks.scoring import Fault

TOLERANCE = 1e-4
"""relative, of each value that both sides compute; KL also 1e-6 nats absolutely."""
PEER = "sae_lens.evals"
BFLOAT16 = "sae-checks, bfloat16 model"
N_PROMPTS = {128: 2, 1024: 1}
"""per batch of SAE Lens."""


class Store:
    """What SAE Lens's evaluator asks of an ActivationsStore, with our tokens in it."""

    def __init__(self, tokens: torch.Tensor, n_prompts: int) -> None:
        self.tokens, self.at = tokens, 0
        self.store_batch_size_prompts, self.context_size = n_prompts, tokens.shape[1]

    def get_batch_tokens(self, n: int) -> torch.Tensor:
        self.at += n
        return self.tokens[self.at - n : self.at]

    def reset_input_dataset(self) -> None:
        self.at = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What both sides measure of one SAE."""

    ce_clean: float
    ce_spliced: float
    kl: float
    l0: float
    explained_variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One context to measure at."""

    shape: Shape
    raw: torch.nn.Module
    model: HuggingFaceModel
    hooked: Any  # Any: TransformerLens is not typed
    saes: list[Any]  # Any: sae_lens ships no types
    peer_at: tuple[int, ...]
    """which of *saes* SAE Lens evaluates, one by one; its time is scaled to all."""
    in_bfloat16: HuggingFaceModel | None = None
    """the same model, with SAEs and losses in float32 as ever."""
    sequences: Sequences

    @property
    def n_context(self) -> int:
        return int(self.sequences.tokens.shape[1])

    @property
    def n_tokens(self) -> int:
        return int(self.sequences.tokens.size)

    @property
    def bos(self) -> int:
        return self.shape.n_vocabulary - 1

    @property
    def tokens(self) -> torch.Tensor:
        return torch.from_numpy(self.sequences.tokens)


def ours(work: Work, *, ablates: bool, n_batch_tokens: int = 4096) -> list[Values]:
    loaded = [random_release.measured_sae(sae, n_context=work.n_context) for sae in work.saes]
    found = measure.measure_text(
        work.model, loaded, work.sequences, n_batch_tokens=n_batch_tokens, progress=lambda *_: None, ablates=ablates
    )
    return [_values(losses) for losses in found]


def _values(losses: TextLosses | Fault) -> Values:
    """From the sums, so that one sequence is enough."""
    if isinstance(losses, Fault):
        raise SystemExit(losses.problem)
    span, made = losses.within, losses.reconstructions
    n, n_replaced = span.n_tokens.sum(), made.n_tokens.sum()
    spread = made.norm_squared.sum() - np.square(made.sum.sum(0)).sum() / n_replaced
    return Values(
        ce_clean=float(span.ce_clean_nats.sum() / n),
        ce_spliced=float(span.ce_spliced_nats.sum() / n),
        kl=float(span.kl_nats.sum() / n),
        l0=float(made.n_active.sum() / n_replaced),
        explained_variance=float(1 - made.error_squared.sum() / spread),
    )


def theirs(work: Work) -> list[Values]:
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    n_prompts = N_PROMPTS.get(work.n_context, 1)
    n_batches = len(work.tokens) // n_prompts
    config = EvalConfig(
        n_eval_reconstruction_batches=n_batches,
        n_eval_sparsity_variance_batches=n_batches,
        compute_ce_loss=True,
        compute_kl=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
    )
    found = []
    for sae in (work.saes[i] for i in work.peer_at):
        store = Store(work.tokens, n_prompts)
        metrics, _ = run_evals(sae, store, work.hooked, ActivationScaler(), config, exclude_special_tokens=[work.bos])
        of = {key: value for group in metrics.values() for key, value in group.items()}
        found.append(
            Values(
                ce_clean=of["ce_loss_without_sae"],
                ce_spliced=of["ce_loss_with_sae"],
                kl=of["kl_div_with_sae"],
                l0=of["l0"],
                explained_variance=of["explained_variance"],
            )
        )
    return found


def kl_of_scored(work: Work, sae: Any) -> float:  # Any: as above
    """SAE Lens's KL without the last position of each sequence, which has no next token: ours does not score it."""
    from sae_lens.evals import get_recons_loss
    from sae_lens.training.activation_scaler import ActivationScaler

    found = []
    for tokens in work.tokens.split(N_PROMPTS.get(work.n_context, 1)):
        with torch.no_grad():
            of = get_recons_loss(
                sae,
                work.hooked,
                ActivationScaler(),
                tokens,
                compute_kl=True,
                compute_ce_loss=True,
                ignore_tokens=[work.bos],
            )
        found.append(of["kl_div_with_sae"][:, 1:-1])
    return float(torch.cat(found).double().mean())


def agree(work: Work, got: list[Values], expected: list[Values]) -> None:
    """
    Compare both sides value by value; KL, for which SAE Lens is asked once more, of the first SAE alone.

    Raises:
        SystemExit: they differ.
    """
    worst = dict.fromkeys(("ce_clean", "ce_spliced", "l0", "explained_variance", "kl"), 0.0)
    for i, b in zip(work.peer_at, expected, strict=True):
        sae, a = work.saes[i], got[i]
        for name in worst:
            if name == "kl" and i != work.peer_at[0]:
                continue
            x, y = getattr(a, name), kl_of_scored(work, sae) if name == "kl" else getattr(b, name)
            difference = max(0.0, abs(x - y) - (1e-6 if name == "kl" else 0)) / max(abs(y), 1e-12)
            worst[name] = max(worst[name], difference)
            if not difference <= TOLERANCE:
                raise SystemExit(f"{sae.cfg.metadata.hook_name}: {name} is {x:.8g} here and {y:.8g} in SAE Lens")
    print(f"agree to {TOLERANCE:g}: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
    print(f"first SAE: {got[0]}")
    print("CE increase of each, nats/token: " + " ".join(f"{v.ce_spliced - v.ce_clean:.4f}" for v in got))
    print("L0 of each: " + " ".join(f"{v.l0:.0f}" for v in got), flush=True)


def now() -> float:
    """Seconds: of this process's own work where it has one thread, for a neighbour's is not in it; else of a clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(run: Callable[[], list[Values]]) -> tuple[list[Values], float, float]:
    """What *run* finds, its seconds, and the most memory held meanwhile beyond what was held before, in MiB."""
    before, most, done = _rss(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], _rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = now()
    try:
        found = run()
    finally:
        elapsed = now() - start
        done.set()
        watcher.join()
    return found, elapsed, max(0.0, most[0] - before)


def _rss() -> float:
    """MiB resident now; where /proc does not tell, the most so far."""
    try:
        n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return n_pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def matmul_rate(dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few large products, into memory that is there: as fast as this machine multiplies now."""
    best = 0.0
    for n_rows, n_inner, n_columns in ((1024, 768, 3072), (512, 768, 24576), (2048, 2048, 2048)):
        a, b = (torch.randn(shape).to(dtype) for shape in ((n_rows, n_inner), (n_inner, n_columns)))
        out = torch.empty(n_rows, n_columns, dtype=dtype)
        for _ in range(4):
            start = now()
            torch.mm(a, b, out=out)
            best = max(best, 2 * n_rows * n_inner * n_columns / (now() - start))
    return best


def flop(work: Work, *, ablates: bool) -> float:
    """Of the matrix products that remain once the clean pass is shared and every splice resumes behind its hook."""
    shape, d = work.shape, work.shape.d_model
    layer = 24 * d * d + 2 * d * work.n_context  # its matrices; scores and mixing, of which half is masked
    unembed = 2 * d * shape.n_vocabulary
    resumed = sum(shape.n_layers - start_of(sae) for sae in work.saes)
    n_saes = len(work.saes)
    per_token = shape.n_layers * layer + unembed  # the clean pass
    per_token += n_saes * (2 * d * (shape.d_sae + shape.l0)) + (1 + ablates) * (resumed * layer + n_saes * unembed)
    return per_token * work.n_tokens


def start_of(sae: Any) -> int:  # Any: as above
    """Blocks before the hook of *sae*."""
    _, layer, name = sae.cfg.metadata.hook_name.split(".", 2)
    return int(layer) + name.endswith("post")


def compare(work: Work, n_rounds: int, *, with_theirs: bool, ablates: bool) -> None:
    sides: dict[str, Callable[[], list[Values]]] = {"sae-checks": lambda: ours(work, ablates=False)}
    if ablates:
        sides["sae-checks, ablation too"] = lambda: ours(work, ablates=True)
    if work.in_bfloat16 is not None:
        narrow = replace(work, model=work.in_bfloat16)
        sides[BFLOAT16] = lambda: ours(narrow, ablates=False)
    if with_theirs:
        sides[PEER] = lambda: theirs(work)
    took: dict[str, list[float]] = {name: [] for name in sides}
    memory = dict.fromkeys(sides, 0.0)
    rates, shares = [], {name: [] for name in sides}
    for i in range(n_rounds):
        found: dict[str, list[Values]] = {}
        for name, run in sides.items():
            rates.append(matmul_rate(torch.float32))
            found[name], seconds, most = timed(run)
            seconds *= len(work.saes) / len(work.peer_at) if name == PEER else 1
            took[name].append(seconds)
            memory[name] = max(memory[name], most)
            rate = flop(work, ablates="ablation" in name) / seconds
            shares[name].append(rate / max(rates[-1], matmul_rate(torch.float32)))
        if i == 0 and with_theirs:
            agree(work, found["sae-checks"], found[PEER])
        if i == 0 and BFLOAT16 in found:
            pairs = zip(found["sae-checks"], found[BFLOAT16], strict=True)
            bias = [(b.ce_spliced - b.ce_clean) - (a.ce_spliced - a.ce_clean) for a, b in pairs]
            print(
                "change of the CE increase by bfloat16, nats/token: " + " ".join(f"{x:.1e}" for x in bias), flush=True
            )
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
        ratio = [b / a for a, b in zip(seconds, took.get(PEER, seconds), strict=True)]
        share = "" if name == PEER else f"{statistics.median(shares[name]):.0%}"
        told = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})" if with_theirs else ""
        rate = n * work.n_tokens / middle
        print(f"| {name} | {middle / n:.3f} | {rate:,.0f} | {memory[name]:,.0f} | {share} | {told} |")
    in_bfloat16 = matmul_rate(torch.bfloat16)
    print(f"\nmatmul: {statistics.median(rates) / 1e9:.0f} GFLOP/s (in bfloat16 {in_bfloat16 / 1e9:.0f})")


def profile(work: Work) -> None:
    """Where the time of one sweep goes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watched

    with watched(activities=[ProfilerActivity.CPU]) as seen:
        ours(work, ablates=False)
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def hooked(raw: torch.nn.Module, shape: Shape) -> Any:  # Any: TransformerLens is not typed
    """TransformerLens's model with the weights of *raw*, as SAE Lens uses it."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = HookedTransformerConfig(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_ctx=shape.n_positions,
        d_head=shape.d_model // shape.n_heads,
        n_heads=shape.n_heads,
        d_vocab=shape.n_vocabulary,
        act_fn="gelu_new",
        normalization_type="LN",
        device="cpu",
    )
    with contextlib.redirect_stdout(io.StringIO()):
        made = HookedTransformer(config)
        weights = {name: value.clone() for name, value in convert_gpt2_weights(raw, config).items()}
        made.load_and_process_state_dict(
            weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
        )
    return made.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, nargs="+", default=[128, 1024])
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
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shape = Shape(n_layers=3, d_model=64, n_heads=4, n_vocabulary=1000, d_sae=512, l0=16) if asked.quick else Shape()
    hooks = shape.hooks
    chosen = tuple(hooks[i] for i in _spread(min(asked.saes, len(hooks)), len(hooks)))
    _tell_machine()
    raw = random_release.model(shape)
    model, saes = random_release.measured_model(raw, shape), random_release.saes(raw, shape, chosen)
    peer = None if asked.alone or asked.profile else hooked(raw, shape)
    narrow = random_release.measured_model(copy.deepcopy(raw).bfloat16(), shape) if asked.bf16 else None
    for n_context in asked.context:
        n_sequences = asked.batches * N_PROMPTS.get(n_context, 1)
        made = random_release.sequences(shape, n_sequences=n_sequences, n_context=n_context)
        peer_at = _spread(min(asked.peer_saes or len(saes), len(saes)), len(saes))
        work = Work(shape=shape, raw=raw, model=model, hooked=peer, saes=saes, peer_at=peer_at, sequences=made)
        work = replace(work, in_bfloat16=narrow)
        print(f"\n## context {n_context}\n")
        if asked.profile:
            profile(work)
            continue
        compare(work, asked.rounds, with_theirs=peer is not None, ablates=not asked.no_ablation)


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
