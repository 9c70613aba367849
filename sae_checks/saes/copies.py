"""Finds SAEs with the same weights, also where copies differ by rounding or by the order of their latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sae_checks.saes.sae import LoadedSae

_N_LATENTS = 64
"""latents of one SAE that are looked for in the other."""
_TOLERANCE = 0.1
"""relative distance of two vectors that are the same but for rounding. WHY: 8 bits for a whole matrix with outliers
give some 0.05; latents of SAEs that were trained apart are at 1 and more."""
_SHARE = 0.95
"""share of the latents that must be found. WHY not all: rounding may zero a small one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """Shapes of the weights of an SAE, and numbers that depend neither on the order of latents nor much on rounding."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    product: torch.Tensor
    """(d,) the decoder, and the encoder if there is one, times a seeded vector."""

    def resembles(self, other: Sketch) -> bool:
        """Whether *other* may be a copy."""
        return self.shapes == other.shapes and _are_close(self.product, other.product)


@torch.inference_mode()
def sketch(sae: LoadedSae) -> Sketch:
    """The sketch of *sae*."""
    weights = sae.module.state_dict()
    shapes = tuple(sorted((name, tuple(weight.shape)) for name, weight in weights.items()))
    decoder = weights["W_dec"].cpu().double()
    drawn = torch.randn(decoder.shape[-1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    along = decoder @ drawn  # (d_sae,)
    encoder = _encoder(weights)
    product = decoder.T @ along if encoder is None else encoder.cpu().double() @ along
    return Sketch(shapes=shapes, product=product)


@torch.inference_mode()
def are_copies(one: LoadedSae, other: LoadedSae) -> bool:
    """Whether two SAEs, whose sketches resemble each other, have the same weights but for rounding and order."""
    if one.fingerprint == other.fingerprint:
        return True
    weights, others = one.module.state_dict(), other.module.state_dict()
    norms = weights["W_dec"].norm(dim=-1)
    alive = norms.nonzero().flatten()
    if not len(alive):
        return False
    drawn = torch.randperm(len(alive), generator=torch.Generator().manual_seed(0))[:_N_LATENTS]
    chosen = alive[drawn.to(alive.device)]
    theirs = torch.nn.functional.normalize(others["W_dec"], dim=-1)
    matched = (weights["W_dec"][chosen] @ theirs.T).argmax(-1)
    pairs = [(weights["W_dec"][chosen], others["W_dec"][matched])]
    encoder, other_encoder = _encoder(weights), _encoder(others)
    if encoder is not None and other_encoder is not None:
        pairs.append((encoder.T[chosen], other_encoder.T[matched]))
    is_found = torch.stack([_distances(a, b) <= _TOLERANCE for a, b in pairs]).all(0)
    if is_found.double().mean() < _SHARE:
        return False
    d_sae = len(norms)
    of_latents = [name for name, weight in weights.items() if weight.shape == (d_sae,)]
    beside = [name for name, weight in weights.items() if weight.ndim == 1 and name not in of_latents]
    return all(
        _are_close(weights[name][chosen][is_found], others[name][matched][is_found]) for name in of_latents
    ) and all(_are_close(weights[name], others[name]) for name in beside)


def _encoder(weights: Mapping[str, Any]) -> torch.Tensor | None:
    """The encoder (d_in, d_sae); None: it is the decoder, or of another form."""
    encoder: torch.Tensor | None
    encoder, decoder = weights.get("W_enc"), weights["W_dec"]
    return encoder if encoder is not None and encoder.shape[-1] == len(decoder) else None


def _distances(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Distances of the rows, relative to the length of those of *one*."""
    relative: torch.Tensor = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp(min=1e-12)
    return relative


def _are_close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).norm() <= _TOLERANCE * one.norm().clamp(min=1e-6))
