"""The budget of a verdict: how much may be measured, when to look at it, and at which error rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ALPHA = 0.05
"""Chance that one check passes an SAE beyond its limit; and that any check of a release fails one within its limit."""
N_BETWEEN_LOOKS = 8
N_LEAST = 8
"""Sequences or items below which nothing is decided."""
N_SMOKE = 64
"""A plan of no more sequences can pass at half of N_LEAST_TO_PASS."""
N_LEAST_TO_PASS = 32
N_GUARDED = 128
"""A plan of so many pays for the guard against what was not met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a verdict may spend: settled with the plan, never from what was measured."""

    n_planned: int
    """sequences or items of the plan; an extension does not change it, and with it none of the bounds."""
    n_most: int
    """that can be measured: the extension's, or as many as the corpus has."""
    n_checks: int
    """of the whole release, whatever of it is judged."""

    @property
    def alpha_to_fail(self) -> float:
        return ALPHA / self.n_checks

    @property
    def n_tightest(self) -> float:
        """Where the bounds are tightest for their level."""
        return max(32.0, self.n_planned / 4)

    @property
    def n_least_to_pass(self) -> int:
        return N_LEAST_TO_PASS // 2 if self.n_planned <= N_SMOKE else N_LEAST_TO_PASS

    @property
    def is_guarded(self) -> bool:
        return self.n_planned >= N_GUARDED

    def looks(self, n: int, *, n_silent: int = 0) -> Iterator[int]:
        """Numbers of values at which is looked, of *n* that are there; *n_silent* more were measured for nothing."""
        for look in range(1, n + 1):
            is_last = look == n and n + n_silent == self.n_most
            if look >= N_LEAST and (look % N_BETWEEN_LOOKS == 0 or is_last):
                yield look
