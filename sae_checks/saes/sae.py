"""A loaded SAE and its reconstructions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch

from sae_checks import errors
from sae_checks.provenance import FileHash, SaeFacts
from sae_checks.release import release
from sae_checks.saes import loading, sparse_decode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """An SAE's output for one batch, and which latents were active."""

    output: torch.Tensor
    """float32 (batch, seq, d_out)."""
    n_active: torch.Tensor
    """(batch, seq) number of active latents."""
    active: torch.Tensor | None = None
    """bool (batch, seq, d_sae), or sparse COO (batch * seq, d_sae); None: the SAE has no latents."""


class Reconstructs(Protocol):
    """An SAE or transcoder that can be spliced into a model."""

    sae_id: str
    hook: str
    """the hook that it reads."""
    hook_out: str
    """the hook that it writes; differs from *hook* for transcoders."""
    head_slice: slice
    """the part of an activation's last dimension that it reads and writes: one head's, or all."""
    n_training_context_tokens: int | None
    center: bool
    """whether the model's activations must be centred over d_model for it."""

    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        """Reconstruct *x*, float32 (batch, seq, d_in), whole sequences from their beginning."""


class LoadedSae:
    """An SAE that SAE Lens loaded, in float32 whatever the model's dtype. Implements `Reconstructs`."""

    def __init__(
        self, described: release.Sae, sae: torch.nn.Module, *, files: loading.Files, center: bool, head_slice: slice
    ) -> None:
        self.sae_id = described.sae_id
        self.hook = described.hook
        self.hook_out = described.hook_out
        self.head_slice = head_slice
        self.n_training_context_tokens = described.n_training_context_tokens
        self.center = center
        self.files = files
        self._sae = cast(Any, sae.eval().requires_grad_(False))  # Any: the methods of an nn.Module are untyped
        if sae.hook_z_reshaping_mode:  # activations at hook_z are already (batch, seq, n_heads * d_head)
            self._sae.turn_off_forward_pass_hook_z_reshaping()
        self._forward_is_decode_of_encode = _forward_is_decode_of_encode(sae)

    @property
    def module(self) -> torch.nn.Module:
        """SAE Lens's module."""
        return cast(torch.nn.Module, self._sae)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the weights, independent of their files."""
        digest = hashlib.sha256()
        for name, weight in sorted(self._sae.state_dict().items()):
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        if not sparse_decode.is_supported(self._sae, x.device):
            return self.reconstruct_densely(x)
        rows = sparse_decode.reconstruct_rows(self._sae, x.flatten(0, -2))
        active = rows.active if rows.active.is_sparse else rows.active.view(*x.shape[:-1], -1)
        return Reconstruction(
            output=rows.output.view(*x.shape[:-1], -1), n_active=rows.n_active.view(x.shape[:-1]), active=active
        )

    @torch.inference_mode()
    def reconstruct_densely(self, x: torch.Tensor) -> Reconstruction:
        """As `reconstruct`, by SAE Lens's own encode and decode."""
        # TRAP: always decode right after encode, since some architectures keep the input's norm between the two calls
        latents = self._sae.encode(x)  # (batch, seq, d_sae)
        # WHY not always decode: a skip transcoder adds a linear map of its input, a temporal SAE its prediction
        output = self._sae.decode(latents) if self._forward_is_decode_of_encode else self._sae(x)
        if output.shape[:-1] != x.shape[:-1]:
            raise errors.wrong_shape(self.sae_id, str(tuple(x.shape)), str(tuple(output.shape)))
        dense = latents.to_dense() if latents.is_sparse else latents
        active = dense != 0
        return Reconstruction(output=output.float(), n_active=active.sum(-1), active=active)


def _forward_is_decode_of_encode(sae: torch.nn.Module) -> bool:
    """Whether *sae* inherits `forward` from SAE Lens's base classes."""
    from sae_lens.saes.sae import SAE
    from sae_lens.saes.transcoder import Transcoder

    forward: object = type(sae).forward
    return forward in (SAE.forward, Transcoder.forward)


def load(described: release.Sae, *, device: torch.device, center: bool, head_slice: slice) -> LoadedSae:
    """
    Load *described* through SAE Lens, in float32.

    Args:
        described: the SAE.
        device: where its weights go.
        center: see `Reconstructs.center`.
        head_slice: see `Reconstructs.head_slice`.

    Raises:
        SaeError: SAE Lens cannot load it, or a weight is not finite.
    """
    sae, files = loading.load(described, device)
    return LoadedSae(described, sae, files=files, center=center, head_slice=head_slice)


def facts(described: release.Sae, loaded: LoadedSae) -> SaeFacts:
    """Provenance of *loaded*, with the hash of every file that it was made from."""
    return SaeFacts(
        sae_id=described.sae_id,
        hook=described.hook,
        hook_out=described.hook_out,
        head=described.head,
        architecture=described.architecture,
        d_in=described.d_in,
        d_sae=described.d_sae,
        n_training_context_tokens=described.n_training_context_tokens,
        weights=tuple(FileHash(name=n, sha256=release.sha256_of(p)) for n, p in sorted(loaded.files.items()))
        or (FileHash(name="in memory", sha256=loaded.fingerprint),),
    )
