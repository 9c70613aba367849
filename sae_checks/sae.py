"""Weights -> a reconstruction. SAE Lens loads and runs the SAE; this checks what it loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from sae_checks import errors, loading, release
from sae_checks.provenance import FileHash, SaeFacts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """What the SAE makes of its input."""

    output: torch.Tensor
    """float32, the input's shape."""
    n_active: torch.Tensor
    """(batch, seq) latents that are not zero."""


class Reconstructs(Protocol):
    """An SAE ready to run."""

    sae_id: str
    hook: str
    n_training_context_tokens: int | None
    center: bool
    """its input is the residual less its mean over d_model."""

    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        """Encode and decode float32 *x* (batch, seq, d_in)."""


class LoadedSae:
    """An SAE that SAE Lens loaded, in float32 whatever the model's dtype."""

    def __init__(self, described: release.Sae, sae: torch.nn.Module, *, files: loading.Files, center: bool) -> None:
        self.sae_id = described.sae_id
        self.hook = described.hook
        self.n_training_context_tokens = described.n_training_context_tokens
        self.center = center
        self.files = files
        self._sae = sae.eval().requires_grad_(False)

    @torch.inference_mode()
    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        # Always decode(encode(x)): some architectures keep the input's norm between the two calls.
        latents = self._sae.encode(x)  # type: ignore[operator]  # (batch, seq, d_sae); nn.Module's methods are untyped
        output = self._sae.decode(latents).float()  # type: ignore[operator]  # (batch, seq, d_in)
        if output.shape != x.shape:
            raise errors.wrong_shape(self.sae_id, str(tuple(x.shape)), str(tuple(output.shape)))
        dense = latents.to_dense() if latents.is_sparse else latents
        return Reconstruction(output=output, n_active=(dense != 0).sum(-1))


def load(described: release.Sae, *, device: torch.device, center: bool) -> LoadedSae:
    """
    Load *described* through SAE Lens, in float32.

    Raises:
        SaeError: SAE Lens cannot load it, or a weight is not finite.
    """
    sae, files = loading.load(described, device)
    return LoadedSae(described, sae, files=files, center=center)


def facts(described: release.Sae, loaded: LoadedSae) -> SaeFacts:
    """What was loaded, with the hash of every file that it was made from."""
    return SaeFacts(
        sae_id=described.sae_id,
        hook=described.hook,
        architecture=described.architecture,
        d_in=described.d_in,
        d_sae=described.d_sae,
        n_training_context_tokens=described.n_training_context_tokens,
        weights=tuple(FileHash(name=n, sha256=release.sha256_of(p)) for n, p in sorted(loaded.files.items())),
    )
