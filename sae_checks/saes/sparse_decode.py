"""
SAEs whose latents are each token's own, run some rows at a time and decoded from the active latents alone.

An SAE of 24,576 latents has some 60 active ones: the product with the whole decoder would be two fifths of its cost,
and passes over all latents, each into fresh memory, as much again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

STANDARD = "sae_lens.saes.standard_sae.StandardSAE"
KNOWN = frozenset(
    {
        STANDARD,
        "sae_lens.saes.abstopk_sae.AbsTopKSAE",
        "sae_lens.saes.gated_sae.GatedSAE",
        "sae_lens.saes.jumprelu_sae.JumpReLUSAE",
        "sae_lens.saes.topk_sae.TopKSAE",
        "sae_lens.saes.transcoder.JumpReLUTranscoder",
        "sae_lens.saes.transcoder.Transcoder",
    }
)
"""Classes of SAE Lens that were read and found so."""
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
    if device.type != "cpu" or _name(sae) not in KNOWN:
        return False
    cfg: Any = sae.cfg
    return (
        cfg.normalize_activations in ("none", "expected_average_only_in")  # the others keep the input's norm
        and not getattr(cfg, "rescale_acts_by_decoder_norm", False)
        and not cfg.reshape_activations.startswith("hook_z")
    )


def run(sae: Any, rows: torch.Tensor) -> Made:  # Any: the methods of an nn.Module are untyped
    """What *sae*, one that `can`, makes of *rows* (rows, d_in)."""
    n = max(N_ROWS_LEAST, N_LATENTS_PER_CHUNK // sae.W_dec.shape[0])
    room = torch.empty(min(n, len(rows)), sae.W_dec.shape[0]) if _is_relu(sae) else None
    made = [_chunk(sae, chunk, None if room is None else room[: len(chunk)]) for chunk in torch.split(rows, n)]
    return Made(
        output=torch.cat([each.output for each in made]),
        n_active=torch.cat([each.n_active for each in made]),
        active=_joined([each.active for each in made]),
    )


def _is_relu(sae: Any) -> bool:  # Any: as above
    """Whether its latents are relu(x W_enc + b_enc) and nothing else."""
    return _name(sae) == STANDARD and type(sae.activation_fn) is torch.nn.ReLU


def _name(sae: object) -> str:
    """Of its very class: what inherits from one may do anything."""
    return f"{type(sae).__module__}.{type(sae).__qualname__}"


def _chunk(sae: Any, rows: torch.Tensor, room: torch.Tensor | None) -> Made:  # Any: as above
    latents = _encoded(sae, rows) if room is None else torch.mm(sae.process_sae_in(rows), sae.W_enc, out=room)
    active = _active(latents, 0 if room is None else -sae.b_enc)  # (rows, d_sae)
    row, latent = (torch.from_numpy(i) for i in np.divmod(np.flatnonzero(active), latents.shape[1]))
    n_active = torch.bincount(row, minlength=len(rows))
    if len(row) > FEW * latents.numel():
        whole = latents if room is None else torch.relu(latents.add_(sae.b_enc))
        return Made(output=sae.decode(whole), n_active=n_active, active=torch.from_numpy(active))
    value = latents[row, latent] if room is None else torch.relu(latents[row, latent] + sae.b_enc[latent])
    output = torch.nn.functional.embedding_bag(
        latent,
        sae.W_dec,
        n_active.cumsum(0) - n_active,  # where each row's begin
        mode="sum",
        per_sample_weights=value,
    )
    which = torch.stack((row, latent))
    few = torch.sparse_coo_tensor(which, torch.ones(len(row), dtype=torch.bool), latents.shape, check_invariants=False)
    return Made(output=output.add_(sae.b_dec), n_active=n_active, active=few)


def _encoded(sae: Any, rows: torch.Tensor) -> torch.Tensor:  # Any: as above
    latents: torch.Tensor = sae.encode(rows)
    return latents.to_dense() if latents.is_sparse else latents


def _active(latents: torch.Tensor, bound: torch.Tensor | int) -> NDArray[np.bool_]:
    """
    Where *latents* are not 0, or, with -b_enc for *bound*, would not be once that is added and relu was taken.

    What is not a number counts as active, as it does with `!= 0`: it must reach the output. Not by torch: it compares,
    counts and looks for flags several times slower than NumPy.
    """
    if isinstance(bound, int):
        found: NDArray[np.bool_] = np.not_equal(latents.numpy(), bound)
        return found
    below: NDArray[np.bool_] = np.less_equal(latents.numpy(), bound.numpy())
    np.logical_not(below, out=below)
    return below


def _joined(active: Sequence[torch.Tensor]) -> torch.Tensor:
    if all(each.is_sparse for each in active):
        return torch.cat(list(active))
    return torch.cat([each.to_dense() if each.is_sparse else each for each in active])
