"""
The SAE's error against random errors of the same size at every token.

Sources: Gurnee, "SAE reconstruction errors are (empirically) pathological" (2024), for directions drawn evenly; Lee and
Heimersheim, arXiv 2410.12555, for directions drawn with the covariance of the activations.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import RandomErrorLosses
from sae_checks.measuring.scoring import Batch, SpanSums, score
from sae_checks.measuring.studies.study import summed
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import preprocess, replace_at, splice


class RandomError:
    """One SAE; the first look estimates the covariance, the second measures."""

    n_looks = 2

    def __init__(self, sae: Reconstructs, sequences: Sequences, seed: int) -> None:
        self._sae, self._seed = sae, seed
        self._lengths = sequences.lengths
        n, n_positions = sequences.tokens.shape
        self._n_within = min(n_positions, sae.n_training_context_tokens or n_positions)
        self._spans = [SpanSums(n) for _ in range(3)]
        self._squares = np.zeros((2, n))
        self._n_tokens = 0
        self._sum: torch.Tensor = torch.zeros(())
        self._outer: torch.Tensor = torch.zeros(())
        self.hooks = frozenset({sae.hook, sae.hook_out})

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, look: int) -> None:
        counted = batch.replaced.clone()
        counted[:, self._n_within :] = False
        if look == 0:
            x = preprocess(clean.activation(self._sae.hook_out), self._sae.hook_out, self._sae)[counted].cpu().double()
            self._n_tokens += len(x)
            self._sum = self._sum + x.sum(0)  # (d,)
            self._outer = self._outer + x.T @ x  # (d, d)
        else:
            self._measure(model, batch, clean, counted)

    def _measure(self, model: LanguageModel, batch: Batch, clean: CleanPass, counted: torch.Tensor) -> None:
        sae, written = self._sae, clean.activation(self._sae.hook_out)
        made = splice(clean.activation(sae.hook), written, batch.replaced, sae)
        x = preprocess(written, sae.hook_out, sae)  # (batch, seq, d)
        size = made.error_squared.sqrt()[..., None]
        hidden = [clean.hidden, model.resume(clean, {sae.hook_out: replace_with(made.activation)})]
        for factor in (None, self._factor()):
            drawn = self._drawn(batch, x.shape[-1]).to(x)  # (batch, seq, d)
            direction = drawn if factor is None else drawn @ factor.to(x)
            direction = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-30)
            disturbed = replace_at(written, (x + size * direction).to(written.dtype), batch.replaced, sae.head_slice)
            hidden.append(model.resume(clean, {sae.hook_out: replace_with(disturbed)}))
        of_clean, *found = score(model, batch, hidden)
        chosen = batch.position < self._n_within
        for span, of_one in zip(self._spans, found, strict=True):
            span.add(batch.row[chosen], of_clean.ce_nats[chosen], of_one.ce_nats[chosen], of_one.kl_nats[chosen])
        self._squares[0, batch.sequences] = summed(made.error_squared, counted)
        self._squares[1, batch.sequences] = summed(made.target.square().sum(-1), counted)

    def _factor(self) -> torch.Tensor:
        """(d, d) whose product with white noise has the covariance of the activations."""
        mean = self._sum / self._n_tokens
        covariance = self._outer / self._n_tokens - mean[:, None] * mean[None, :]
        values, vectors = torch.linalg.eigh(covariance)
        factor: torch.Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        return factor

    def _drawn(self, batch: Batch, d: int) -> torch.Tensor:
        """White noise of each sequence's own, whatever stands beside it in the batch."""
        drawn = torch.zeros(*batch.tokens.shape, d)
        for i, sequence in enumerate(batch.sequences.tolist()):
            digest = hashlib.sha256(f"{self._seed}:{self._sae.sae_id}:{sequence}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
            length = int(self._lengths[sequence])
            drawn[i, :length] = torch.randn(length, d, generator=generator)
        return drawn

    def losses(self) -> RandomErrorLosses:
        spliced, isotropic, covariance = (span.span() for span in self._spans)
        return RandomErrorLosses(
            n_tokens=spliced.n_tokens,
            kl_spliced_nats=spliced.kl_nats,
            kl_isotropic_nats=isotropic.kl_nats,
            kl_covariance_nats=covariance.kl_nats,
            error_squared=self._squares[0],
            norm_squared=self._squares[1],
        )
