"""The budget of a verdict: how much may be measured, when to look at it, and at which error rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ALPHA = 0.05
"""Probability that a check passes an SAE beyond its limit, and that any check of a release fails one within it."""
N_BETWEEN_LOOKS = 8
N_LEAST = 8
"""sequences or items below which nothing is decided."""
N_SMOKE = 64
"""A plan of at most so many can pass from half of N_LEAST_TO_PASS on."""
N_LEAST_TO_PASS = 32
N_GUARDED = 128
"""A plan of at least so many is guarded, see `sequential.GUARD_FACTOR`; a smaller one could hardly pass then."""


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
        return N_LEAST_TO_PASS // 2 if self.n_planned <= N_SMOKE else N_LEAST_TO_PASS

    @property
    def is_guarded(self) -> bool:
        return self.n_planned >= N_GUARDED

    def looks(self, n: int, *, n_without_value: int = 0) -> Iterator[int]:
        """Numbers of values at which to look, up to *n*; *n_without_value* more sequences gave no value."""
        for look in range(1, n + 1):
            is_last = look == n and n + n_without_value == self.n_most
            if look >= N_LEAST and (look % N_BETWEEN_LOOKS == 0 or is_last):
                yield look
