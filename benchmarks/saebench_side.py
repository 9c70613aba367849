"""SAEBench's core evaluator on the same model, SAEs and tokens; it is imported when it is asked."""

from __future__ import annotations

import copy
from typing import Any

import torch
from saelens_side import Store
from work import Values, Work

NAMES = ("ce_clean", "ce_spliced", "l0", "squared_error", "kl")
"""Its explained variance is no such thing: for the mean of an activation it takes the mean of its square. The error
that it is made from is compared."""


def check_installed() -> None:
    """
    Import it.

    Raises:
        SystemExit: it cannot be, and why.
    """
    try:
        import sae_bench.evals.core.main  # noqa: F401 -- whether it can be
    except ImportError as problem:
        said = f"SAEBench's core evaluator cannot be imported: {problem}\n  try: pip install --no-deps sae-bench"
        raise SystemExit(said) from None


def core(work: Work) -> list[Values]:
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.evals.core.main import run_evals

    n_batches = len(work.tokens) // work.n_prompts
    config = CoreEvalConfig(
        batch_size_prompts=work.n_prompts,
        n_eval_reconstruction_batches=n_batches,
        n_eval_sparsity_variance_batches=n_batches,
        compute_ce_loss=True,
        compute_kl=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
    )
    found = []
    for sae in (work.saes[i] for i in work.peer_at):
        store: Any = Store(work.tokens, work.n_prompts)
        metrics, _ = run_evals(_as_it_reads(sae), store, work.hooked, config, ignore_tokens={work.bos})
        of = {key: value for group in metrics.values() for key, value in group.items()}
        found.append(
            Values(
                ce_clean=of["ce_loss_without_sae"],
                ce_spliced=of["ce_loss_with_sae"],
                kl=of["kl_div_with_sae"],
                l0=of["l0"],
                explained_variance=of["explained_variance"],
                # divided by the tokens of a batch twice
                squared_error=of["mse"] * work.n_prompts * (work.n_context - 1),
            )
        )
    return found


def kl_of_scored(work: Work, sae: Any) -> float:  # Any: sae_lens ships no types
    """Its KL without the last position of each sequence, which has no next token: ours does not score it."""
    from sae_bench.evals.core.main import get_recons_loss

    found = []
    for tokens in work.tokens.split(work.n_prompts):
        of = get_recons_loss(
            _as_it_reads(sae),
            work.hooked,
            tokens,
            Store(work.tokens, work.n_prompts),
            compute_kl=True,
            compute_ce_loss=True,
            ignore_tokens={work.bos},
            exclude_special_tokens_from_reconstruction=True,
        )
        found.append(of["kl_div_with_sae"][:, 1:-1])
    return float(torch.cat(found).double().mean())


def _as_it_reads(sae: Any) -> Any:  # Any: as above
    """The same weights with a configuration as SAEBench's own loader leaves it."""
    from sae_bench.sae_bench_utils.general_utils import _standardize_sae_cfg

    one = copy.copy(sae)
    one.cfg = copy.deepcopy(sae.cfg)
    _standardize_sae_cfg(one.cfg)
    return one
