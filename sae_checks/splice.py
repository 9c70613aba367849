"""A reconstruction in place of one activation, at the positions that are replaced and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sae_checks.sae import Reconstructs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splice:
    """What goes into the model, and what the SAE made of what came out of it."""

    activation: torch.Tensor
    """(batch, seq, d_model) in the model's dtype: the reconstruction where *replaced*, the original elsewhere."""
    read: torch.Tensor
    """(batch, seq, d_model) float32, what the SAE was given."""
    n_active: torch.Tensor
    """(batch, seq)."""
    error_squared: torch.Tensor
    """(batch, seq) |x - x^|^2."""
    seen_active: torch.Tensor | None
    """(d_sae,) latents active on any replaced token within the training context: reduced here, for one batch of which
    latents are active is as large as the latents themselves."""


def splice(activation: torch.Tensor, replaced: torch.Tensor, sae: Reconstructs) -> Splice:
    """
    Put *sae*'s reconstruction in place of *activation* (batch, seq, d_model) where *replaced* (batch, seq).

    For an SAE trained on centred residuals the mean over d_model is taken away before encoding and not put back: a
    model that only reads its residual stream through LayerNorm cannot tell.
    """
    read = activation.float()
    if sae.center:
        read = read - read.mean(-1, keepdim=True)
    made = sae.reconstruct(read)
    return Splice(
        activation=torch.where(replaced[..., None], made.output.to(activation.dtype), activation),
        read=read,
        n_active=made.n_active,
        error_squared=(read - made.output).square().sum(-1),
        seen_active=None if made.active is None else _seen_active(made.active, replaced, sae.n_training_context_tokens),
    )


def _seen_active(active: torch.Tensor, replaced: torch.Tensor, n_within: int | None) -> torch.Tensor:
    within = slice(n_within)
    return (active[:, within] & replaced[:, within, None]).flatten(0, 1).any(0)


def ablate(activation: torch.Tensor, replaced: torch.Tensor) -> torch.Tensor:
    """Zeros in place of *activation* where *replaced*: the same positions that the splice replaces."""
    return torch.where(replaced[..., None], torch.zeros_like(activation), activation)
