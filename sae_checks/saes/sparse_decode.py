"""
Fast reconstruction on a CPU: a few rows at a time, decoded from the active latents alone.

Of 24,576 latents some 60 are active. Without this, the product with the whole decoder would be two fifths of the cost,
and passes over all latents in newly allocated memory as much again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_STANDARD = "sae_lens.saes.standard_sae.StandardSAE"
SUPPORTED_CLASSES = frozenset(
    {
        _STANDARD,
        "sae_lens.saes.abstopk_sae.AbsTopKSAE",
        "sae_lens.saes.gated_sae.GatedSAE",
        "sae_lens.saes.jumprelu_sae.JumpReLUSAE",
        "sae_lens.saes.topk_sae.TopKSAE",
        "sae_lens.saes.transcoder.JumpReLUTranscoder",
        "sae_lens.saes.transcoder.Transcoder",
    }
)
"""classes of SAE Lens whose code was read: rows are independent, and decoding is one product and a bias."""
N_LATENTS_PER_CHUNK = 6 << 20
"""24 MiB in float32. WHY: below 32 MiB the C library reuses freed memory instead of asking for new pages."""
MIN_ROWS = 32
SPARSE_SHARE = 1 / 16
"""share of active latents up to which gathering their rows of the decoder is faster than the whole product."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowReconstruction:
    """An SAE's output for rows of activations, and which latents were active."""

    output: torch.Tensor
    """(rows, d_out)."""
    n_active: torch.Tensor
    """(rows,)."""
    active: torch.Tensor
    """bool (rows, d_sae); sparse COO if few are active."""


def is_supported(sae: torch.nn.Module, device: torch.device) -> bool:
    """
    Whether `reconstruct_rows` gives the same as SAE Lens's encode and decode of *sae*.

    On accelerators it is not supported, since the product is not the bottleneck there.
    """
    if device.type != "cpu" or _class_name(sae) not in SUPPORTED_CLASSES:
        return False
    cfg: Any = sae.cfg
    return (
        cfg.normalize_activations in ("none", "expected_average_only_in")  # the others keep the input's norm
        and not getattr(cfg, "rescale_acts_by_decoder_norm", False)
        and not cfg.reshape_activations.startswith("hook_z")
    )


def reconstruct_rows(sae: Any, rows: torch.Tensor) -> RowReconstruction:  # Any: an nn.Module's methods are untyped
    """Reconstruct *rows* (rows, d_in) with *sae*, which `is_supported`."""
    n = max(MIN_ROWS, N_LATENTS_PER_CHUNK // sae.W_dec.shape[0])
    buffer = torch.empty(min(n, len(rows)), sae.W_dec.shape[0]) if _is_relu(sae) else None
    chunks = [
        _reconstruct_chunk(sae, chunk, None if buffer is None else buffer[: len(chunk)])
        for chunk in torch.split(rows, n)
    ]
    return RowReconstruction(
        output=torch.cat([chunk.output for chunk in chunks]),
        n_active=torch.cat([chunk.n_active for chunk in chunks]),
        active=_joined([chunk.active for chunk in chunks]),
    )


def _is_relu(sae: Any) -> bool:  # Any: as above
    """Whether its latents are relu(x W_enc + b_enc), without further steps."""
    return _class_name(sae) == _STANDARD and type(sae.activation_fn) is torch.nn.ReLU


def _class_name(sae: object) -> str:
    """Full name of its own class, since a subclass may compute something else."""
    return f"{type(sae).__module__}.{type(sae).__qualname__}"


def _reconstruct_chunk(sae: Any, rows: torch.Tensor, buffer: torch.Tensor | None) -> RowReconstruction:  # Any: as above
    """Reconstruct *rows*; a *buffer* (rows, d_sae) receives x W_enc of an SAE that `_is_relu`."""
    latents = _encode(sae, rows) if buffer is None else torch.mm(sae.process_sae_in(rows), sae.W_enc, out=buffer)
    active = _active(latents, 0 if buffer is None else -sae.b_enc)  # (rows, d_sae)
    row, latent = (torch.from_numpy(i) for i in np.divmod(np.flatnonzero(active), latents.shape[1]))
    n_active = torch.bincount(row, minlength=len(rows))
    if len(row) > SPARSE_SHARE * latents.numel():
        dense = latents if buffer is None else torch.relu(latents.add_(sae.b_enc))
        return RowReconstruction(output=sae.decode(dense), n_active=n_active, active=torch.from_numpy(active))
    value = latents[row, latent] if buffer is None else torch.relu(latents[row, latent] + sae.b_enc[latent])
    output = torch.nn.functional.embedding_bag(
        latent,
        sae.W_dec,
        n_active.cumsum(0) - n_active,  # index of each row's first active latent
        mode="sum",
        per_sample_weights=value,
    )
    indices, ones = torch.stack((row, latent)), torch.ones(len(row), dtype=torch.bool)
    sparse = torch.sparse_coo_tensor(indices, ones, latents.shape, check_invariants=False)
    return RowReconstruction(output=output.add_(sae.b_dec), n_active=n_active, active=sparse)


def _encode(sae: Any, rows: torch.Tensor) -> torch.Tensor:  # Any: as above
    latents: torch.Tensor = sae.encode(rows)
    return latents.to_dense() if latents.is_sparse else latents


def _active(latents: torch.Tensor, bound: torch.Tensor | int) -> NDArray[np.bool_]:
    """
    Which *latents* are active: unequal to a *bound* of 0, or above a *bound* of -b_enc, before the bias and ReLU.

    TRAP: NaN counts as active, so that it reaches the output. WHY NumPy: torch is several times slower at this.
    """
    if isinstance(bound, int):
        unequal: NDArray[np.bool_] = np.not_equal(latents.numpy(), bound)
        return unequal
    active: NDArray[np.bool_] = np.less_equal(latents.numpy(), bound.numpy())
    np.logical_not(active, out=active)
    return active


def _joined(active: Sequence[torch.Tensor]) -> torch.Tensor:
    if all(each.is_sparse for each in active):
        return torch.cat(list(active))
    return torch.cat([each.to_dense() if each.is_sparse else each for each in active])
