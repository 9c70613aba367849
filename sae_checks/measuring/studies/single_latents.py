"""What an SAE writes at one position without one of its latents, for each that is active there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sae_checks.saes.sae import Reconstructs

N_MOST = 256
"""latents that are taken out at one position, one at a time."""
N_DECODED_PER_CHUNK = 1 << 22
"""latents (rows times d_sae) in memory at a time: 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleLatents:
    """The active latents at one position, those that write most first."""

    latents: torch.Tensor
    """(n,) indices."""
    activations: torch.Tensor
    """(n,)."""
    norm_shares: torch.Tensor
    """(n,) length of what each writes over the length of the reconstruction."""
    without: torch.Tensor
    """(n, d_out) the reconstruction without each."""
    without_any: torch.Tensor
    """(d_out,) the reconstruction with all of them, and of those beyond N_MOST, at zero."""
    n_active: int


def single_latents(sae: Reconstructs, x: torch.Tensor, output: torch.Tensor, position: int) -> SingleLatents | str:
    """
    Take each active latent at *position* out of *output* (1, seq, d_out), what *sae* makes of *x* (1, seq, d_in).

    A latent is set to zero in what is decoded. What the SAE adds besides its latents (a skip transcoder's skip, what a
    temporal SAE predicts) stays as it is.

    Returns:
        What is written then; in words, why it cannot be told.
    """
    module: Any = getattr(sae, "module", None)  # Any: SAE Lens's classes have no types of their own
    if module is None or not callable(getattr(module, "decode", None)):
        return "it has no latents that can be decoded one without another"
    here = x[:, position : position + 1]
    encoded = _encoded(module, x)  # (1, seq, d_sae)
    in_sequence = module.decode(encoded)[0, position].float()
    latents = encoded[0, position]
    (whole,) = _decoded(module, here, latents[None])
    if not torch.allclose(whole, in_sequence, rtol=1e-4, atol=1e-4 * float(in_sequence.norm())):
        return "its decoding of a latent depends on other positions"
    besides, of_output = output[0, position] - whole, output[0, position]
    active = torch.nonzero(latents)[:, 0]
    chosen = active[_by_length(module, latents, active)][:N_MOST]
    decoded = [_decoded(module, here, rows) for rows in _without_each(latents, chosen)]
    without = torch.cat([*decoded, whole.new_zeros(0, len(whole))])
    (of_none,) = _decoded(module, here, torch.zeros_like(latents)[None])
    length = of_output.norm()
    return SingleLatents(
        latents=chosen,
        activations=latents[chosen],
        norm_shares=(whole - without).norm(dim=-1) / length.clamp_min(torch.finfo(length.dtype).tiny),
        without=besides + without,
        without_any=besides + of_none,
        n_active=len(active),
    )


def _encoded(module: Any, x: torch.Tensor) -> torch.Tensor:  # Any: as above
    latents: torch.Tensor = module.encode(x)
    return latents.to_dense() if latents.is_sparse else latents


def _decoded(module: Any, here: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:  # Any: as above
    """(rows, d_out) of *rows* (rows, d_sae) at the position whose input is *here* (1, 1, d_in)."""
    module.encode(here)  # some decode by the norm of what was encoded last, and once
    made: torch.Tensor = module.decode(rows[:, None])[:, 0]
    return made.float()


def _by_length(module: Any, latents: torch.Tensor, active: torch.Tensor) -> torch.Tensor:  # Any: as above
    """The order of *active* by what each writes, the most first."""
    lengths = latents[active].abs()
    rows = getattr(module, "W_dec", None)
    if isinstance(rows, torch.Tensor) and len(rows) == len(latents):
        lengths = lengths * rows[active].float().norm(dim=-1)
    return torch.argsort(lengths, descending=True, stable=True)


def _without_each(latents: torch.Tensor, chosen: torch.Tensor) -> Iterator[torch.Tensor]:
    """(rows, d_sae) *latents* with one of *chosen* at zero in each row, some rows at a time."""
    for some in torch.split(chosen, max(1, N_DECODED_PER_CHUNK // len(latents))):
        rows = latents.repeat(len(some), 1)
        rows[torch.arange(len(some), device=rows.device), some] = 0
        yield rows
