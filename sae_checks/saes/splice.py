"""Splicing: puts an SAE's reconstruction in place of an activation, at the replaced positions alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sae_checks.release import hooks
from sae_checks.saes.sae import Reconstructs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splice:
    """A spliced activation, and how well the SAE reconstructed the original."""

    activation: torch.Tensor
    """(batch, seq, width) in the model's dtype: the reconstruction where *replaced*, the original elsewhere."""
    target: torch.Tensor
    """(batch, seq, d_out) float32: the activation that the SAE should reconstruct."""
    n_active: torch.Tensor
    """(batch, seq) number of active latents."""
    error_squared: torch.Tensor
    """(batch, seq) squared norm of target minus reconstruction."""
    ever_active: torch.Tensor | None
    """(d_sae,) whether a latent is active on any replaced token within the training context; reduced to that here,
    since the flags of a batch are as large as its latents."""


def splice(read: torch.Tensor, written: torch.Tensor, replaced: torch.Tensor, sae: Reconstructs) -> Splice:
    """
    Reconstruct *read* with *sae* and put the reconstruction in place of *written*.

    TRAP: for an SAE trained on centred activations the mean over d_model is subtracted and not added back. A model that
    reads its residual stream through LayerNorm alone computes the same.

    Args:
        read: (batch, seq, width) activation at `sae.hook`.
        written: (batch, seq, width) activation at `sae.hook_out`.
        replaced: (batch, seq) positions to replace.
        sae: the SAE.
    """
    made = sae.reconstruct(preprocess(read, sae.hook, sae))
    target = preprocess(written, sae.hook_out, sae)
    return Splice(
        activation=replace_at(written, made.output.to(written.dtype), replaced, sae.head_slice),
        target=target,
        n_active=made.n_active,
        error_squared=(target - made.output).square().sum(-1),
        ever_active=None if made.active is None else _ever_active(made.active, replaced, sae.n_training_context_tokens),
    )


def ablate(activation: torch.Tensor, replaced: torch.Tensor, head_slice: slice) -> torch.Tensor:
    """*activation* with zeros at exactly the entries that a splice would replace."""
    return replace_at(activation, torch.zeros_like(activation[..., head_slice]), replaced, head_slice)


def preprocess(activation: torch.Tensor, hook: str, sae: Reconstructs) -> torch.Tensor:
    """*activation* at *hook* in the form that *sae* was trained on: its head slice, in float32, centred if need be."""
    x = activation[..., sae.head_slice].float()
    is_centred = sae.center and hooks.parse_known(hook).is_centred
    return x - x.mean(-1, keepdim=True) if is_centred else x


def _ever_active(active: torch.Tensor, replaced: torch.Tensor, n_context: int | None) -> torch.Tensor:
    """Which latents (d_sae,) are active on a replaced token among the first *n_context*; None: among all."""
    context = slice(n_context)
    if active.is_sparse:
        counted = torch.zeros_like(replaced)
        counted[:, context] = replaced[:, context]
        row, latent = active._indices()  # noqa: SLF001 -- `indices()` would sort them first
        found = torch.zeros(active.shape[-1], dtype=torch.bool, device=active.device)
        found[latent[counted.flatten()[row]]] = True
        return found
    return (active[:, context] & replaced[:, context, None]).flatten(0, 1).any(0)


def replace_at(
    activation: torch.Tensor, value: torch.Tensor, replaced: torch.Tensor, head_slice: slice
) -> torch.Tensor:
    """*activation* with *value* in its *head_slice* at the *replaced* positions (batch, seq)."""
    changed = torch.where(replaced[..., None], value, activation[..., head_slice])
    if changed.shape == activation.shape:
        return changed
    whole = activation.clone()
    whole[..., head_slice] = changed
    return whole
