"""
The bet with a cap: a sequential test that a mean cost is below a limit, as long as no sequence costs too much.

It needs a cost whose unit is known before it is measured: a ratio whose denominators, such as tokens, have a known
largest value, and of which an exact reconstruction has the least. Then what a sequence costs beyond the limit has an
upper end, and `betting` is exact at any number of sequences. Without an upper end no test of a mean is: a rare sequence
that costs enough spoils the mean and is seldom seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sae_checks.judging import betting
from sae_checks.judging.budget import ALPHA, Budget
from sae_checks.judging.limits import Limit
from sae_checks.judging.samples import Answers, Ratio, Sample
from sae_checks.losses import Counts, Floats

_ENOUGH = -math.log(ALPHA)
_N_DOUBLINGS = 20
"""of the limit in the search for one that passes."""
_N_HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CappedBet:
    """A bet that sum(costs) / sum(weights) is below a limit."""

    costs: Floats
    """(n,), of each sequence: numerator - ideal value x denominator, in the unit of the largest denominator."""
    weights: Floats
    """(n,), denominators over the largest one, from 0 to 1."""
    rows: Counts | None
    """(n,) of the sequences in the losses; None: they are numbered as here."""
    ideal: float
    limit: float
    """above *ideal*."""
    worst: float
    """how many times the limit a sequence may cost."""

    @classmethod
    def of(cls, sample: Sample | Answers, limit: Limit, budget: Budget) -> CappedBet | None:
        """The bet on *sample*; None: its unit is not known, or *limit* is none of a cost."""
        if not isinstance(sample, Ratio) or sample.is_log or sample.largest_denominator is None:
            return None
        ideal = sample.ideal_value
        if ideal is None or limit.kind != "max" or limit.value <= ideal:
            return None
        costs = (sample.numerators - ideal * sample.denominators) / sample.largest_denominator
        weights = sample.denominators / sample.largest_denominator
        numbers = {"ideal": ideal, "limit": limit.value, "worst": budget.worst(limit)}
        return cls(costs=costs, weights=weights, rows=sample.rows, **numbers)

    def passes(self) -> Floats:
        """Whether the limit is passed after each sequence, by itself; (n,)."""
        return np.asarray(self._log_capital(len(self.costs), self.limit - self.ideal) >= _ENOUGH)

    def costliest(self, n: int) -> tuple[int, float]:
        """(row, times the limit) of that of the first *n* sequences that costs most, as if it were of full length."""
        times = 1 + self._excesses(n, self.limit - self.ideal)
        which = int(times.argmax())
        return (which if self.rows is None else int(self.rows[which])), float(times[which])

    def upper_bound(self, n: int) -> float | None:
        """
        The least limit that the first *n* sequences pass, each limit with its own worst cost; None: they pass none.

        A limit at the mean never passes, since the logs of the factors are at most -lambda x and these sum to 0. Where
        no cost is below 0, every factor grows with the limit, so the limits that pass are all above one number. Else
        this is the number next to the bet's own limit: below it if that passes, and above it if not.
        """
        limit = self.limit - self.ideal
        has_passed = self._passes(n, limit)
        if has_passed and not (self.costs[:n] > 0).any():
            return self.ideal
        low = max(math.fsum(self.costs[:n]) / math.fsum(self.weights[:n]), 0.0)
        high = limit if has_passed else self._higher(n, max(low, limit))
        if high is None:
            return None
        low = low if has_passed else max(low, limit)
        for _ in range(_N_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._passes(n, middle) else (middle, high)
        return self.ideal + high

    def n_needed(self, n: int) -> int | None:
        """About how many sequences like the first *n* would pass; None: no number of them, or too many to say."""
        if self.costliest(n)[1] > self.worst:
            return None
        gains = betting.gains(self._excesses(n, self.limit - self.ideal), self.worst)
        growth = float(gains.mean(axis=0).max())
        if growth * 1e6 < 1:
            return None
        return math.ceil((_ENOUGH + math.log(len(betting.BETS))) / growth)

    def _higher(self, n: int, low: float) -> float | None:
        highs = (low * 2.0**k for k in range(1, _N_DOUBLINGS + 1))
        return next((high for high in highs if self._passes(n, high)), None)

    def _passes(self, n: int, limit: float) -> bool:
        return bool(self._log_capital(n, limit)[-1] >= _ENOUGH)

    def _log_capital(self, n: int, limit: float) -> Floats:
        return betting.log_capital_on_costs(self._excesses(n, limit), self.worst)

    def _excesses(self, n: int, limit: float) -> Floats:
        """What each of the first *n* sequences costs beyond *limit*, which is above 0, in limits; (n,)."""
        return np.asarray((self.costs[:n] - limit * self.weights[:n]) / limit, dtype=np.float64)
