"""Weights -> a reconstruction. SAE Lens loads and runs the SAE; this checks what it loaded."""

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
    """What the SAE makes of its input."""

    output: torch.Tensor
    """float32 (batch, seq, d_out)."""
    n_active: torch.Tensor
    """(batch, seq) latents that are not zero."""
    active: torch.Tensor | None = None
    """(batch, seq, d_sae) which ones, or sparse (COO) (batch * seq, d_sae); None: it has no latents of its own."""


class Reconstructs(Protocol):
    """An SAE or transcoder ready to run."""

    sae_id: str
    hook: str
    """read."""
    hook_out: str
    """written; *hook* but for transcoders."""
    part: slice
    """of the last dimension of what both hooks carry: one head's, or all."""
    n_training_context_tokens: int | None
    center: bool
    """it was trained on activations less their mean over d_model, which the model's own still have."""

    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        """What float32 *x* (batch, seq, d_in), a whole sequence from its beginning, becomes."""


class LoadedSae:
    """An SAE that SAE Lens loaded, in float32 whatever the model's dtype."""

    def __init__(
        self, described: release.Sae, sae: torch.nn.Module, *, files: loading.Files, center: bool, part: slice
    ) -> None:
        self.sae_id = described.sae_id
        self.hook = described.hook
        self.hook_out = described.hook_out
        self.part = part
        self.n_training_context_tokens = described.n_training_context_tokens
        self.center = center
        self.files = files
        self._sae = cast(Any, sae.eval().requires_grad_(False))  # Any: the methods of an nn.Module are untyped
        if sae.hook_z_reshaping_mode:  # heads lie side by side here
            self._sae.turn_off_forward_pass_hook_z_reshaping()
        self._forward_is_decode_of_encode = _forward_is_decode_of_encode(sae)

    @property
    def module(self) -> torch.nn.Module:
        """SAE Lens's own, for what takes more than a reconstruction."""
        return cast(torch.nn.Module, self._sae)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over its weights: equal ones compute the same, whatever their files are called."""
        digest = hashlib.sha256()
        for name, weight in sorted(self._sae.state_dict().items()):
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        if not sparse_decode.can(self._sae, x.device):
            return self.plainly(x)
        made = sparse_decode.run(self._sae, x.flatten(0, -2))
        active = made.active if made.active.is_sparse else made.active.view(*x.shape[:-1], -1)
        return Reconstruction(
            output=made.output.view(*x.shape[:-1], -1), n_active=made.n_active.view(x.shape[:-1]), active=active
        )

    @torch.inference_mode()
    def plainly(self, x: torch.Tensor) -> Reconstruction:
        """What `reconstruct` must equal: all rows at once, and from all latents."""
        # Always decode(encode(x)): some architectures keep the input's norm between the two calls.
        latents = self._sae.encode(x)  # (batch, seq, d_sae)
        # A skip transcoder adds what its latents do not hold, a temporal SAE what it predicted: only the call knows.
        output = self._sae.decode(latents) if self._forward_is_decode_of_encode else self._sae(x)
        if output.shape[:-1] != x.shape[:-1]:
            raise errors.wrong_shape(self.sae_id, str(tuple(x.shape)), str(tuple(output.shape)))
        dense = latents.to_dense() if latents.is_sparse else latents
        active = dense != 0
        return Reconstruction(output=output.float(), n_active=active.sum(-1), active=active)


def _forward_is_decode_of_encode(sae: torch.nn.Module) -> bool:
    """Whether *sae* leaves forward as SAE Lens's base classes have it."""
    from sae_lens.saes.sae import SAE
    from sae_lens.saes.transcoder import Transcoder

    forward: object = type(sae).forward
    return forward in (SAE.forward, Transcoder.forward)


def load(described: release.Sae, *, device: torch.device, center: bool, part: slice) -> LoadedSae:
    """
    Load *described* through SAE Lens, in float32, for *part* of what its hooks carry.

    Raises:
        SaeError: SAE Lens cannot load it, or a weight is not finite.
    """
    sae, files = loading.load(described, device)
    return LoadedSae(described, sae, files=files, center=center, part=part)


def facts(described: release.Sae, loaded: LoadedSae) -> SaeFacts:
    """What was loaded, with the hash of every file that it was made from."""
    return SaeFacts(
        sae_id=described.sae_id,
        hook=described.hook,
        hook_out=described.hook_out,
        head=described.head,
        architecture=described.architecture,
        d_in=described.d_in,
        d_sae=described.d_sae,
        n_training_context_tokens=described.n_training_context_tokens,
        weights=tuple(FileHash(name=n, sha256=release.sha256_of(p)) for n, p in sorted(loaded.files.items())),
    )
