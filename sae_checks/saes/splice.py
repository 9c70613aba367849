"""A reconstruction in place of one activation, at the positions that are replaced and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sae_checks.release import hooks
from sae_checks.saes.sae import Reconstructs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splice:
    """What goes into the model, and what the SAE made of what came out of it."""

    activation: torch.Tensor
    """(batch, seq, width) in the model's dtype: the reconstruction where *replaced*, the original elsewhere."""
    target: torch.Tensor
    """(batch, seq, d_out) float32, what the SAE should have given."""
    n_active: torch.Tensor
    """(batch, seq)."""
    error_squared: torch.Tensor
    """(batch, seq) |x - x^|^2."""
    seen_active: torch.Tensor | None
    """(d_sae,) latents active on any replaced token within the training context: reduced here, for one batch of which
    latents are active is as large as the latents themselves."""


def splice(read: torch.Tensor, written: torch.Tensor, replaced: torch.Tensor, sae: Reconstructs) -> Splice:
    """
    Put what *sae* makes of *read* in place of *written* (both (batch, seq, width)) where *replaced* (batch, seq).

    For an SAE trained on centred activations the mean over d_model is taken away before encoding and not put back: a
    model that only reads its residual stream through LayerNorm cannot tell.
    """
    made = sae.reconstruct(basis(read, sae.hook, sae))
    target = basis(written, sae.hook_out, sae)
    return Splice(
        activation=put(written, made.output.to(written.dtype), replaced, sae.part),
        target=target,
        n_active=made.n_active,
        error_squared=(target - made.output).square().sum(-1),
        seen_active=None if made.active is None else _seen_active(made.active, replaced, sae.n_training_context_tokens),
    )


def ablate(activation: torch.Tensor, replaced: torch.Tensor, part: slice) -> torch.Tensor:
    """Zeros in place of *part* of *activation* where *replaced*: what the splice replaces, and nothing else."""
    return put(activation, torch.zeros_like(activation[..., part]), replaced, part)


def basis(activation: torch.Tensor, hook: str, sae: Reconstructs) -> torch.Tensor:
    """*sae*'s part of *activation*, as it was trained on it."""
    x = activation[..., sae.part].float()
    parsed = hooks.parse(hook)
    assert parsed is not None, hook
    return x - x.mean(-1, keepdim=True) if sae.center and parsed.is_centred else x


def _seen_active(active: torch.Tensor, replaced: torch.Tensor, n_within: int | None) -> torch.Tensor:
    within = slice(n_within)
    if active.is_sparse:
        counted = torch.zeros_like(replaced)
        counted[:, within] = replaced[:, within]
        row, latent = active._indices()  # noqa: SLF001 -- the public name sorts them first
        seen = torch.zeros(active.shape[-1], dtype=torch.bool, device=active.device)
        seen[latent[counted.flatten()[row]]] = True
        return seen
    return (active[:, within] & replaced[:, within, None]).flatten(0, 1).any(0)


def put(activation: torch.Tensor, value: torch.Tensor, replaced: torch.Tensor, part: slice) -> torch.Tensor:
    changed = torch.where(replaced[..., None], value, activation[..., part])
    if changed.shape == activation.shape:
        return changed
    whole = activation.clone()
    whole[..., part] = changed
    return whole
