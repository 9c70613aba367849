"""
An SAE's error compared with random errors of the same size at every token.

Sources: Gurnee, "SAE reconstruction errors are (empirically) pathological" (2024), for uniform directions; Lee and
Heimersheim, arXiv 2410.12555, for directions drawn with the covariance of the activations.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import RandomErrorLosses
from sae_checks.measuring.scoring import Batch, SpanSums, add_within, score
from sae_checks.measuring.sequence_sums import n_within
from sae_checks.measuring.studies.study import sum_counted
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import preprocess, replace_at, splice


class RandomError:
    """The study of one SAE: the first epoch estimates the covariance of the activations, the second measures."""

    n_epochs = 2

    def __init__(self, sae: Reconstructs, sequences: Sequences, seed: int) -> None:
        self._sae, self._seed = sae, seed
        self._lengths = sequences.lengths
        n = len(sequences.rows)
        self._n_within = n_within(sae, sequences)
        self._spans = [SpanSums(n) for _ in range(3)]  # spliced, isotropic, covariance
        self._squares = np.zeros((2, n))  # error, norm
        self._n_tokens = 0
        self._sum: torch.Tensor = torch.zeros(())  # (d,) with the first batch
        self._outer: torch.Tensor = torch.zeros(())  # (d, d) with the first batch
        self.hooks = frozenset({sae.hook, sae.hook_out})

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, epoch: int) -> None:
        counted = batch.replaced.clone()
        counted[:, self._n_within :] = False
        if epoch == 0:
            x = preprocess(clean.activation(self._sae.hook_out), self._sae.hook_out, self._sae)[counted].cpu().double()
            self._n_tokens += len(x)
            self._sum = self._sum + x.sum(0)
            self._outer = self._outer + x.T @ x
        else:
            self._measure(model, batch, clean, counted)

    def _measure(self, model: LanguageModel, batch: Batch, clean: CleanPass, counted: torch.Tensor) -> None:
        sae, written = self._sae, clean.activation(self._sae.hook_out)
        made = splice(clean.activation(sae.hook), written, batch.replaced, sae)
        x = preprocess(written, sae.hook_out, sae)  # (batch, seq, d)
        error_norm = made.error_squared.sqrt()[..., None]
        hidden = [clean.hidden, model.resume(clean, {sae.hook_out: replace_with(made.activation)})]
        noise = self._noise(batch, x.shape[-1]).to(x)  # (batch, seq, d)
        for direction in (noise, noise @ self._covariance_root().to(x)):
            unit = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-30)
            disturbed = replace_at(written, (x + error_norm * unit).to(written.dtype), batch.replaced, sae.head_slice)
            hidden.append(model.resume(clean, {sae.hook_out: replace_with(disturbed)}))
        add_within(self._spans, batch, score(model, batch, hidden), self._n_within)
        self._squares[0, batch.sequences] = sum_counted(made.error_squared, counted)
        self._squares[1, batch.sequences] = sum_counted(made.target.square().sum(-1), counted)

    def _covariance_root(self) -> torch.Tensor:
        """Square root (d, d) of the covariance of the activations: its product with white noise has that covariance."""
        mean = self._sum / self._n_tokens
        covariance = self._outer / self._n_tokens - mean[:, None] * mean[None, :]
        values, vectors = torch.linalg.eigh(covariance)
        root: torch.Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        return root

    def _noise(self, batch: Batch, d: int) -> torch.Tensor:
        """White noise (batch, seq, d), seeded by sequence so that it does not depend on the batch size."""
        noise = torch.zeros(*batch.tokens.shape, d)
        for i, sequence in enumerate(batch.sequences.tolist()):
            digest = hashlib.sha256(f"{self._seed}:{self._sae.sae_id}:{sequence}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
            length = int(self._lengths[sequence])
            noise[i, :length] = torch.randn(length, d, generator=generator)
        return noise

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
