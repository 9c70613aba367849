"""
SAEs whose latents are each token's own, run some rows at a time and decoded from the active latents alone.

An SAE of 24,576 latents has some 60 active ones: the product with the whole decoder would be two fifths of its cost, and
fresh memory for all latents of a large batch more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

N_LATENTS_PER_CHUNK = 6 << 20
"""24 MiB in float32: below 32 MiB the C library hands memory that was given back out again, without new pages."""
N_ROWS_LEAST = 32
FEW = 1 / 16
"""of the latents: up to this share, gathering their rows of the decoder is faster than the product with all of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """What an SAE makes of rows."""

    output: torch.Tensor
    """(rows, d_out)."""
    n_active: torch.Tensor
    """(rows,)."""
    active: torch.Tensor
    """(rows, d_sae) which are: sparse (COO) where they are few, else dense."""


def can(sae: torch.nn.Module, device: torch.device) -> bool:
    """
    Whether *sae* treats each row on its own and decodes by one product and a bias.

    Only then is `run` the same as its own encode and decode. On accelerators the product is not what takes the time.
    """
    from sae_lens.saes.gated_sae import GatedSAE
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE
    from sae_lens.saes.standard_sae import StandardSAE
    from sae_lens.saes.topk_sae import TopKSAE
    from sae_lens.saes.transcoder import JumpReLUTranscoder, Transcoder

    known = (StandardSAE, JumpReLUSAE, GatedSAE, TopKSAE, Transcoder, JumpReLUTranscoder)
    cfg: Any = sae.cfg
    return (
        device.type == "cpu"
        and type(sae) in known
        and cfg.normalize_activations in ("none", "expected_average_only_in")  # the others keep the input's norm
        and not getattr(cfg, "rescale_acts_by_decoder_norm", False)
        and not cfg.reshape_activations.startswith("hook_z")
    )


def run(sae: Any, rows: torch.Tensor) -> Made:  # Any: the methods of an nn.Module are untyped
    """What *sae*, one that `can`, makes of *rows* (rows, d_in)."""
    n = max(N_ROWS_LEAST, N_LATENTS_PER_CHUNK // sae.W_dec.shape[0])
    made = [_chunk(sae, chunk) for chunk in rows.split(n)]
    return Made(
        output=torch.cat([each.output for each in made]),
        n_active=torch.cat([each.n_active for each in made]),
        active=_joined([each.active for each in made]),
    )


def _chunk(sae: Any, rows: torch.Tensor) -> Made:  # Any: as above
    latents = sae.encode(rows)
    if latents.is_sparse:
        latents = latents.to_dense()
    active = latents != 0  # (rows, d_sae)
    # TRAP: torch counts and looks for flags several times slower than NumPy
    row, latent = (torch.from_numpy(i) for i in np.divmod(np.flatnonzero(active.numpy()), active.shape[1]))
    n_active = torch.bincount(row, minlength=len(rows))
    if len(row) > FEW * active.numel():
        return Made(output=sae.decode(latents), n_active=n_active, active=active)
    output = torch.nn.functional.embedding_bag(
        latent,
        sae.W_dec,
        n_active.cumsum(0) - n_active,  # where each row's begin
        mode="sum",
        per_sample_weights=latents[row, latent],
    )
    few = torch.sparse_coo_tensor(
        torch.stack((row, latent)), torch.ones(len(row), dtype=torch.bool), active.shape, check_invariants=False
    )
    return Made(output=output.add_(sae.b_dec), n_active=n_active, active=few)


def _joined(active: Sequence[torch.Tensor]) -> torch.Tensor:
    if all(each.is_sparse for each in active):
        return torch.cat(list(active))
    return torch.cat([each.to_dense() if each.is_sparse else each for each in active])
