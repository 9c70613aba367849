"""Reconstructions of one position with one latent left out, for each latent that is active there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sae_checks.saes.sae import Reconstructs

MAX_LATENTS = 256
"""latents to leave out at one position."""
N_LATENTS_PER_CHUNK = 1 << 22
"""rows times d_sae in memory at a time: 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleLatents:
    """The active latents at one position, those with the largest contribution to the reconstruction first."""

    latents: torch.Tensor
    """(n,) indices."""
    activations: torch.Tensor
    """(n,)."""
    norm_shares: torch.Tensor
    """(n,) norm of each contribution over the norm of the reconstruction."""
    without: torch.Tensor
    """(n, d_out) the reconstruction without each of them."""
    without_any: torch.Tensor
    """(d_out,) the reconstruction without any latent, also without those beyond MAX_LATENTS."""
    n_active: int


def single_latents(sae: Reconstructs, x: torch.Tensor, output: torch.Tensor, position: int) -> SingleLatents | str:
    """
    Leave out each active latent at one position, by decoding with that latent at zero.

    What the SAE adds besides its latents (a skip transcoder's skip, a temporal SAE's prediction) is kept.

    Args:
        sae: the SAE.
        x: (1, seq, d_in) its input.
        output: (1, seq, d_out) its reconstruction of *x*.
        position: index in the sequence.

    Returns:
        The reconstructions, or a text that says why there are none.
    """
    module: Any = getattr(sae, "module", None)  # Any: SAE Lens's classes have no types of their own
    if module is None or not callable(getattr(module, "decode", None)):
        return "it has no latents that can be decoded one without another"
    here = x[:, position : position + 1]
    encoded = _encode(module, x)  # (1, seq, d_sae)
    in_sequence = module.decode(encoded)[0, position].float()
    latents = encoded[0, position]
    (decoded,) = _decode(module, here, latents[None])
    if not torch.allclose(decoded, in_sequence, rtol=1e-4, atol=1e-4 * float(in_sequence.norm())):
        return "its decoding of a latent depends on other positions"
    besides = output[0, position] - decoded  # what the SAE adds besides its latents
    active = torch.nonzero(latents)[:, 0]
    chosen = active[_largest_first(module, latents, active)][:MAX_LATENTS]
    chunks = [_decode(module, here, rows) for rows in _without_each(latents, chosen)]
    without = torch.cat([*chunks, decoded.new_zeros(0, len(decoded))])
    (without_any,) = _decode(module, here, torch.zeros_like(latents)[None])
    norm = output[0, position].norm()
    return SingleLatents(
        latents=chosen,
        activations=latents[chosen],
        norm_shares=(decoded - without).norm(dim=-1) / norm.clamp_min(torch.finfo(norm.dtype).tiny),
        without=besides + without,
        without_any=besides + without_any,
        n_active=len(active),
    )


def _encode(module: Any, x: torch.Tensor) -> torch.Tensor:  # Any: as above
    latents: torch.Tensor = module.encode(x)
    return latents.to_dense() if latents.is_sparse else latents


def _decode(module: Any, here: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:  # Any: as above
    """Decode *rows* (rows, d_sae) to (rows, d_out), at the position whose input is *here* (1, 1, d_in)."""
    module.encode(here)  # TRAP: some architectures decode once, with the norm of the last encoded input
    decoded: torch.Tensor = module.decode(rows[:, None])[:, 0]
    return decoded.float()


def _largest_first(module: Any, latents: torch.Tensor, active: torch.Tensor) -> torch.Tensor:  # Any: as above
    """The order of the *active* latents by the norm of their contribution, the largest first."""
    norms = latents[active].abs()
    decoder = getattr(module, "W_dec", None)
    if isinstance(decoder, torch.Tensor) and len(decoder) == len(latents):
        norms = norms * decoder[active].float().norm(dim=-1)
    return torch.argsort(norms, descending=True, stable=True)


def _without_each(latents: torch.Tensor, chosen: torch.Tensor) -> Iterator[torch.Tensor]:
    """Chunks (rows, d_sae) of copies of *latents*, each with one of *chosen* at zero."""
    for some in torch.split(chosen, max(1, N_LATENTS_PER_CHUNK // len(latents))):
        rows = latents.repeat(len(some), 1)
        rows[torch.arange(len(some), device=rows.device), some] = 0
        yield rows
