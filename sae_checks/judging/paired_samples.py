"""
The values behind a limited measure, sequence by sequence or item by item: what a later run is paired with.

A record keeps them. Every measure is stored as a ratio of two sums; one that is no plain ratio is linearised once, at
the estimate from everything that was measured. Numbers are float32 here as in the record, so values that are equal in
two runs stay equal however they were read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sae_checks import checks
from sae_checks.judging.estimates import Estimate, Reading
from sae_checks.judging.limits import Limit
from sae_checks.judging.samples import Answers, Ratio, Sample
from sae_checks.losses import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRatio:
    """A measure as sum(numerators) / sum(denominators) over sequences or items, in the plan's order."""

    measure: str
    measures_version: int
    """version of the check's measures, see `checks.Check.version`; values of two versions are not comparable."""
    fingerprint: str
    """sha256 of the sequences or items, as in `provenance.CorpusFacts`."""
    numerators: tuple[float, ...]
    """(n,), in the unit of the measure times that of the denominators."""
    denominators: tuple[float, ...]
    """(n,), mostly scored tokens; their sum is above zero."""
    ideal_value: float | None = None
    """the measure's value for an exact reconstruction; None: there is no such number."""
    largest_denominator: float | None = None
    """of any sequence, known beforehand; None: unknown."""

    @property
    def n(self) -> int:
        """Number of sequences or items."""
        return len(self.numerators)

    def first(self, n: int) -> Ratio:
        """The first *n* sequences or items as a sample that can be judged."""
        numerators, denominators = (
            np.array(column[:n], dtype=np.float64) for column in (self.numerators, self.denominators)
        )
        return Ratio(
            numerators=numerators,
            denominators=denominators,
            ideal_value=self.ideal_value,
            largest_denominator=self.largest_denominator,
            has_positive_denominators=bool((denominators > 0).all()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAnswers:
    """How each answer changed with the splice, item by item in the plan's order."""

    measure: str
    measures_version: int
    """as in `PairedRatio`."""
    fingerprint: str
    """as in `PairedRatio`."""
    answers: tuple[int, ...]
    """(n,); 1: lost, -1: won, 0: unchanged."""
    n_listed: int | None
    """items of the whole list; None: unknown."""

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.answers)


PairedSample = PairedRatio | PairedAnswers


def paired_sample(readings: Iterable[Reading], limit: Limit | None, fingerprint: str) -> PairedSample | None:
    """
    The sample behind the limited measure.

    Args:
        readings: what was measured of the check.
        limit: names the measure; None: nothing is limited.
        fingerprint: of the tokens that were measured.

    Returns:
        None where the measure was not measured, is counted instead of estimated, or does not fit float32.
    """
    limited = next((r for r in readings if limit is not None and r.measure == limit.measure), None)
    if limit is None or not isinstance(limited, Estimate) or limited.sample is None:
        return None
    if limited.proxy is not None:  # WHY: a difference of the proxy has another unit than the measure
        return None
    sample = limited.sample
    measures_version = checks.named(limit.check).version
    if isinstance(sample, Answers):
        return PairedAnswers(
            measure=limit.measure,
            measures_version=measures_version,
            fingerprint=fingerprint,
            answers=tuple(sample.values.tolist()),
            n_listed=sample.n_listed,
        )
    with np.errstate(over="ignore"):  # WHY: infinities are refused below
        numerators, denominators = (column.astype(np.float32) for column in _columns(sample))
    if not (np.isfinite(numerators).all() and np.isfinite(denominators).all() and math.fsum(denominators) > 0):
        return None
    return PairedRatio(
        measure=limit.measure,
        measures_version=measures_version,
        fingerprint=fingerprint,
        numerators=tuple(numerators.tolist()),
        denominators=tuple(denominators.tolist()),
        ideal_value=_ideal_value(sample),
        largest_denominator=sample.largest_denominator if isinstance(sample, Ratio) and not sample.is_log else None,
    )


def _ideal_value(sample: Sample) -> float | None:
    return sample.ideal_value if sample.ideal_value is None or not sample.is_log else math.exp(sample.ideal_value)


def _columns(sample: Sample) -> tuple[Floats, Floats]:
    numerators, denominators = sample.first(sample.n)
    if not sample.is_log:
        return numerators, denominators
    mean = math.fsum(numerators) / math.fsum(denominators)
    # WHY: the delta method leads from the logarithm back to the measure
    return np.exp(mean) * (denominators + numerators - mean * denominators), denominators
