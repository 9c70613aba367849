"""The contributions of single latents to an SAE's reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sae_checks.saes.sae import Reconstructs

N_ENTRIES_PER_CHUNK = 1 << 22
"""numbers gathered at a time: 16 MiB."""
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contributions:
    """Every active latent of a batch, with its share of the reconstruction there."""

    position: torch.Tensor
    """(n_active,) index into the batch's positions, flattened to (batch * seq,)."""
    latent: torch.Tensor
    """(n_active,) row of *decoder*."""
    factor: torch.Tensor
    """(n_active,) by which the row is multiplied: the activation, at the SAE's own scale of this token."""
    decoder: torch.Tensor
    """(d_sae, d_out)."""
    bias: torch.Tensor
    """(batch, seq, d_out) the reconstruction without any latent."""


def contributions(sae: Reconstructs, x: torch.Tensor, output: torch.Tensor) -> Contributions | str:
    """
    Split *output* (batch, seq, d_out), the reconstruction of *x* (batch, seq, d_in), into its latents.

    Returns:
        The contributions, or a text that says why the output is no sum of them.
    """
    module: Any = getattr(sae, "module", None)  # Any: SAE Lens's classes have no types of their own
    decoder = getattr(module, "W_dec", None)
    if not isinstance(decoder, torch.Tensor) or not callable(getattr(module, "decode", None)):
        return "it has no latents that can be left out one by one"
    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        decoder = decoder / decoder.norm(dim=-1, keepdim=True)
    parts = [_of_sequence(module, row[None], decoder) for row in x]  # WHY one by one: latents of a batch are large
    if any(part is None for part in parts):
        return "its reconstruction is no sum of latents times rows of its decoder"
    n_positions = x.shape[1]
    known = [part for part in parts if part is not None]
    return Contributions(
        position=torch.cat([i * n_positions + part[0] for i, part in enumerate(known)]),
        latent=torch.cat([part[1] for part in known]),
        factor=torch.cat([part[2] for part in known]),
        decoder=decoder,
        bias=output - torch.stack([part[3] for part in known]),
    )


_Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""position, latent and factor of each active latent (n,), and their sum (seq, d_out)."""


def _of_sequence(module: Any, x: torch.Tensor, decoder: torch.Tensor) -> _Part | None:  # Any: as above
    """The parts of one sequence *x* (1, seq, d_in); None: they do not add up to what the SAE decodes."""
    latents = _encode(module, x)  # (1, seq, d_sae)
    if latents.shape[-1] != len(decoder):
        return None
    decoded = module.decode(latents)[0].float()
    _encode(module, x)  # TRAP: some architectures decode once, with the norm of the last encoded input
    summed = decoded - module.decode(torch.zeros_like(latents))[0].float()  # (seq, d_out)
    plain = latents[0] @ decoder
    scale = (summed * plain).sum(-1) / plain.square().sum(-1).clamp_min(torch.finfo(plain.dtype).tiny)  # (seq,)
    if not torch.allclose(scale[:, None] * plain, summed, rtol=_TOLERANCE, atol=_TOLERANCE * float(summed.abs().max())):
        return None
    position, latent = torch.nonzero(latents[0], as_tuple=True)
    return position, latent, latents[0, position, latent] * scale[position], summed


def _encode(module: Any, x: torch.Tensor) -> torch.Tensor:  # Any: as above
    latents: torch.Tensor = module.encode(x)
    return latents.to_dense() if latents.is_sparse else latents


def removal_effects(found: Contributions, error: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """
    What leaving out each latent alone adds to the squared error, summed over positions; float64 (d_sae,), on the CPU.

    Leaving out z d from a reconstruction with the error e changes |e|^2 by 2 z e.d + z^2 |d|^2.

    Args:
        found: the active latents.
        error: (batch, seq, d_out) activation minus reconstruction.
        counted: (batch, seq) positions that count.
    """
    effects = torch.zeros(len(found.decoder), dtype=torch.float64)
    rows, is_counted = error.flatten(0, 1), counted.flatten()
    chosen = torch.nonzero(is_counted[found.position])[:, 0]
    for some in torch.split(chosen, max(1, N_ENTRIES_PER_CHUNK // rows.shape[-1])):
        latent, factor = found.latent[some], found.factor[some]
        direction = found.decoder[latent]  # (n, d_out)
        product = (rows[found.position[some]] * direction).sum(-1)
        effect = factor * (2 * product + factor * direction.square().sum(-1))
        effects.index_add_(0, latent.cpu(), effect.cpu().double())
    return effects


def without(found: Contributions, output: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    """*output* (batch, seq, d_out) without the latents *left_out*, a few of them (n,)."""
    dropped = torch.isin(found.latent, left_out)
    rows = torch.zeros_like(output).flatten(0, 1)
    rows.index_add_(0, found.position[dropped], found.factor[dropped, None] * found.decoder[found.latent[dropped]])
    return output - rows.view_as(output)
