"""Accumulates the moments of an activation and its reconstruction, batch by batch."""

from __future__ import annotations

import numpy as np
import torch

from sae_checks.losses import Floats, Moments
from sae_checks.measuring.scoring import Batch

SINK = 10
"""times the median norm of its sequence, above which a position is an attention sink."""


def without_sinks(target: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The positions *counted* (batch, seq) at which *target* (batch, seq, d_out) is no attention sink."""
    norms = torch.where(counted, target.norm(dim=-1), torch.nan)
    return counted & (norms <= SINK * norms.nanmedian(-1, keepdim=True).values)


class MomentSums:
    """Accumulates `Moments`."""

    def __init__(self, n_sequences: int) -> None:
        self._n = n_sequences
        self._counts = np.zeros((2, n_sequences), dtype=np.int64)  # counted, left out
        self._squares = np.zeros((3, n_sequences))  # target, output, product
        self._sums: Floats | None = None  # (2, n_sequences, d_out), known with the first batch

    def add(self, batch: Batch, target: torch.Tensor, output: torch.Tensor, counted: torch.Tensor) -> None:
        """Add *target* and *output* (batch, seq, d_out) at the positions *counted* (batch, seq) that are no sinks."""
        rows, chosen = batch.sequences, without_sinks(target, counted)
        # on the CPU, since MPS has no float64
        y, made = (torch.where(chosen.cpu()[..., None], t.cpu().double(), 0) for t in (target, output))
        if self._sums is None:
            self._sums = np.zeros((2, self._n, y.shape[-1]))
        self._counts[:, rows] = torch.stack((chosen.sum(-1), (counted & ~chosen).sum(-1))).cpu().numpy()
        for i, product in enumerate((y * y, made * made, y * made)):
            self._squares[i, rows] = product.sum((-1, -2)).numpy()
        self._sums[0, rows], self._sums[1, rows] = y.sum(-2).numpy(), made.sum(-2).numpy()

    def moments(self) -> Moments:
        """The moments of all batches."""
        assert self._sums is not None  # every corpus has a batch
        return Moments(
            n_tokens=self._counts[0],
            n_left_out=self._counts[1],
            target_sum=self._sums[0],
            output_sum=self._sums[1],
            target_squared=self._squares[0],
            output_squared=self._squares[1],
            product=self._squares[2],
        )
