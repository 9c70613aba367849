"""The budget of a verdict: how much may be measured, when to look at it, and at which error rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae_checks.judging.limits import Limit

ALPHA = 0.05
"""Probability that a check passes an SAE beyond its limit, and that any check of a release fails one within it."""
N_BETWEEN_LOOKS = 8
N_LEAST = 8
"""sequences or items below which nothing is decided."""
N_LEAST_TO_PASS, N_FEW, N_SMOKE = 32, 32, 64
"""Sequences or items from which on bounds let a check pass: half of them in plans of at most N_FEW, three quarters in
plans of at most N_SMOKE."""
N_GUARDED = 64
"""A plan of at least so many is guarded, see `Budget.worst`; a smaller one could hardly pass then."""
WORST, WORST_OF_FEW = 5.0, 3.0
"""Times the limit that one sequence may cost, and the same in plans of at most N_FEW."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a verdict may measure. The plan settles it, never what was measured."""

    n_planned: int
    """sequences or items of the plan, without its extension; the bounds depend on it."""
    n_most: int
    """sequences or items that can be measured: with the extension, or all of the corpus."""
    n_checks: int
    """checks of the whole release; they share the probability of a false failure."""

    @property
    def alpha_to_fail(self) -> float:
        return ALPHA / self.n_checks

    @property
    def n_tightest(self) -> float:
        """Number of values at which the bounds are tightest for their level."""
        return max(32.0, self.n_planned / 4)

    @property
    def n_least_to_pass(self) -> int:
        quarters = 2 if self.n_planned <= N_FEW else 3 if self.n_planned <= N_SMOKE else 4
        return N_LEAST_TO_PASS * quarters // 4

    def worst(self, limit: Limit) -> float:
        """How many times *limit* one sequence may cost if the check is to pass."""
        if limit.worst is not None:
            return limit.worst
        return WORST if self.n_planned > N_FEW else WORST_OF_FEW

    @property
    def is_guarded(self) -> bool:
        return self.n_planned >= N_GUARDED

    def looks(self, n: int, *, n_without_value: int = 0) -> Iterator[int]:
        """Numbers of values at which to look, up to *n*; *n_without_value* more sequences gave no value."""
        for look in range(1, n + 1):
            is_last = look == n and n + n_without_value == self.n_most
            if look >= N_LEAST and (look % N_BETWEEN_LOOKS == 0 or is_last):
                yield look
