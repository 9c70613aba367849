"""Sums at every position of the context, accumulated batch by batch in memory that does not grow with the corpus."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sae_checks.losses import ByPosition, Counts, Flags, Floats, RatioSums


class PositionSums:
    """Accumulates the `ByPosition` of one SAE; batches contain whole sequences."""

    def __init__(self, n_positions: int) -> None:
        self._increase, self._kl, self._running, self._l0, self._unexplained = (
            _RatioSums(n_positions) for _ in range(5)
        )
        self._spread = _Spread(n_positions)

    def add_scores(self, scored: Flags, increase_nats: Floats, kl_nats: NDArray[np.float32]) -> None:
        """Add *increase_nats* and *kl_nats* (rows,), one for each position of *scored* (batch, seq), in its order."""
        position = np.nonzero(scored)[1]
        ones = np.ones(len(position))
        self._increase.add(position, increase_nats, ones)
        self._kl.add(position, kl_nats, ones)
        increase = np.zeros(scored.shape)
        increase[scored] = increase_nats
        self._running.add(position, increase.cumsum(1)[scored], scored.cumsum(1)[scored])

    def add_reconstruction(
        self, replaced: torch.Tensor, x: torch.Tensor, n_active: torch.Tensor, error_squared: torch.Tensor
    ) -> None:
        """Add *x* (batch, seq, d_out), float64, zero where not *replaced*; others (batch, seq). All on the CPU."""
        position = np.nonzero(replaced.numpy())[1]
        self._l0.add(position, n_active[replaced].numpy(), np.ones(len(position)))
        shares = self._spread.shares(x, replaced)
        self._unexplained.add(position, error_squared[replaced].numpy(), shares[replaced].numpy())

    def by_position(self) -> ByPosition:
        """The sums over all batches."""
        return ByPosition(
            ce_increase=self._increase.sums(),
            kl=self._kl.sums(),
            running_increase=self._running.sums(),
            l0=self._l0.sums(),
            unexplained=self._unexplained.sums(),
        )


class _RatioSums:
    """Accumulates `RatioSums`."""

    def __init__(self, n_positions: int) -> None:
        self.n = np.zeros(n_positions, dtype=np.int64)
        self.moments = np.zeros((5, n_positions))

    def add(self, position: Counts, numerator: NDArray[Any], denominator: NDArray[Any]) -> None:
        """Add one *numerator* and *denominator* for each *position* (rows,), which may repeat."""
        n_positions = len(self.n)
        self.n += np.bincount(position, minlength=n_positions)
        numerator, denominator = numerator.astype(np.float64), denominator.astype(np.float64)
        products = (numerator, denominator, numerator**2, numerator * denominator, denominator**2)
        self.moments += [np.bincount(position, values, n_positions) for values in products]

    def sums(self) -> RatioSums:
        numerator, denominator, numerator_squared, numerator_times_denominator, denominator_squared = self.moments
        return RatioSums(
            n=self.n,
            numerator=numerator,
            denominator=denominator,
            numerator_squared=numerator_squared,
            numerator_times_denominator=numerator_times_denominator,
            denominator_squared=denominator_squared,
        )


class _Spread:
    """
    Sum of |x - mean|^2 over sequences at each position, as one share per sequence, without a second pass for the mean.

    The share of the i-th sequence is (i - 1) / i |x - mean of the sequences before it|^2. The shares add up exactly to
    the sum of squares about the final mean. The expectation of each share except the first, which is 0, is the
    variance, so they can be used for the interval of a ratio. They do not depend on the batch size, since the order of
    sequences does not.

    Source: West, "Updating mean and variance estimates", Communications of the ACM 22 (1979).
    """

    def __init__(self, n_positions: int) -> None:
        self.n = torch.zeros(n_positions, dtype=torch.float64)
        self.total: torch.Tensor | None = None  # (n_positions, d_out), known with the first batch

    def shares(self, x: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """Shares (batch, seq) of *x* (batch, seq, d_out), which is zero where not *counted*; valid where counted."""
        positions = slice(x.shape[1])
        if self.total is None:
            self.total = x.new_zeros(len(self.n), x.shape[-1])
        total = self.total[positions] + x.cumsum(0)  # (batch, seq, d_out)
        n_before = self.n[positions] + counted.cumsum(0) - counted.double()
        mean_before = (total - x) / n_before.clamp(min=1)[..., None]
        self.total[positions] = total[-1]
        self.n[positions] += counted.sum(0)
        return n_before / (n_before + 1) * (x - mean_before).square().sum(-1)
