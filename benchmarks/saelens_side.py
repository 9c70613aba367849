"""SAE Lens's evaluator on the same model, SAEs and tokens, and whether it finds the same."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from random_release import Shape
from work import Values, Work

TOLERANCE = 1e-4
"""relative, of each value that both sides compute; KL also 1e-6 nats absolutely."""
NAMES = ("ce_clean", "ce_spliced", "l0", "explained_variance", "kl")
"""of the values that are compared."""


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


def theirs(work: Work) -> list[Values]:
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    n_batches = len(work.tokens) // work.n_prompts
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
        store = Store(work.tokens, work.n_prompts)
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
    for tokens in work.tokens.split(work.n_prompts):
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


def agree(
    work: Work,
    got: list[Values],
    expected: list[Values],
    *,
    peer: str = "SAE Lens",
    names: tuple[str, ...] = NAMES,
    kl: Callable[[Work, Any], float] | None = None,
) -> None:
    """
    Compare both sides value by value; KL, for which *peer* is asked once more by *kl*, of the first SAE alone.

    Raises:
        SystemExit: they differ.
    """
    worst = dict.fromkeys(names, 0.0)
    for i, b in zip(work.peer_at, expected, strict=True):
        sae, a = work.saes[i], got[i]
        for name in worst:
            if name == "kl" and i != work.peer_at[0]:
                continue
            x, y = getattr(a, name), (kl or kl_of_scored)(work, sae) if name == "kl" else getattr(b, name)
            difference = max(0.0, abs(x - y) - (1e-6 if name == "kl" else 0)) / max(abs(y), 1e-12)
            worst[name] = max(worst[name], difference)
            if not difference <= TOLERANCE:
                raise SystemExit(f"{sae.cfg.metadata.hook_name}: {name} is {x:.8g} here and {y:.8g} in {peer}")
    of_peer = "" if peer == "SAE Lens" else f" with {peer}"
    print(f"agree{of_peer} to {TOLERANCE:g}: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))


def tell(got: list[Values]) -> None:
    """What was agreed on."""
    print(f"first SAE: {replace(got[0], squared_error=None)}".replace(", squared_error=None", ""))
    print("CE increase of each, nats/token: " + " ".join(f"{v.ce_spliced - v.ce_clean:.4f}" for v in got))
    print("L0 of each: " + " ".join(f"{v.l0:.0f}" for v in got), flush=True)


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
