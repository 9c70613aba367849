"""
Losses by position -> curves, and readings of the check usable_context.

At every position the sequence is the sampled unit. Positions are not independent, so each interval holds for its own
position, not for all at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from sae_checks import checks
from sae_checks.judging.corpus_readings import first_not_finite, why_nothing_beyond
from sae_checks.judging.estimates import ALPHA, ProxyMean, Reading, all_not_finite, all_not_measured, counted
from sae_checks.judging.samples import Ratio
from sae_checks.losses import Counts, Floats, RatioSums, TextLosses

N_SEQUENCES_LEAST = 8
"""Positions that fewer sequences have do not count for the usable context, unless the training context ends there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One measure by position in the sequence, at every position that at least two sequences have."""

    measure: str
    unit: str
    position: tuple[int, ...]
    """(n_points,) rising; 0 is the first token."""
    value: tuple[float, ...]
    """(n_points,)"""
    low: tuple[float, ...]
    """(n_points,) lower end of the pointwise interval."""
    high: tuple[float, ...]
    """(n_points,) upper end."""
    n_sequences: tuple[int, ...]
    """(n_points,) sequences that have the position."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Band:
    """A ratio at some positions, with its interval. All (n_points,)."""

    position: Counts
    value: Floats
    low: Floats
    high: Floats
    n: Counts


def curves(losses: TextLosses) -> tuple[Curve, ...]:
    """
    The curves of increase, KL, L0 and explained variance.

    Explained variance at a position is 1 - sum |x - x^|^2 / sum |x - m|^2, with m the mean of x at that position. So
    what all texts share there (a position embedding, the huge norm of the first token) is no variance. The other curves
    are means over sequences. Points that are not finite are left out; the checks fail on them.
    """
    sums = losses.by_position
    explained = _band(sums.unexplained)
    bands = (
        (checks.CE_LOSS, "ce_increase", _band(sums.ce_increase)),
        (checks.CE_LOSS, "kl", _band(sums.kl)),
        (checks.SPARSITY, "l0", _band(sums.l0)),
        (
            checks.SPARSITY,
            "explained_variance",
            _Band(
                position=explained.position,
                value=1 - explained.value,
                low=1 - explained.high,
                high=1 - explained.low,
                n=explained.n,
            ),
        ),
    )
    return tuple(_curve(check, measure, band) for check, measure, band in bands)


def usable_context(losses: TextLosses, limit_nats: float | None, least: float | None = None) -> tuple[Reading, ...]:
    """
    Readings of `usable_context`: the longest context over which the SAE's mean cost keeps its ce_loss limit.

    The running increase at position p is the mean increase over positions up to p, of sequences that have p; so short
    documents do not dilute long ones. `usable_context_tokens` is p + 1 for the last p up to which the running increase
    stays within *limit_nats*, from the end of the training context on. Earlier positions do not count against it: the
    limit is on a mean over the training context, and the first tokens of a text may cost more. `usable_context` is the
    same number over the training context. The low end comes from the upper ends of the pointwise intervals, the high
    end from the lower ones. An SAE that never leaves the limit is usable for at least `measured_context_tokens`.

    A length is no mean over sequences, so a proxy is tested: the running increase at the end of a context of *least*
    times the training context. It is within *limit_nats* exactly if `usable_context` is at least *least*, except for a
    curve that leaves the limit earlier and comes back.

    Args:
        losses: of the text pass.
        limit_nats: limit of the mean increase within the training context, in nats per token; None: the SAE's limit is
            on another measure.
        least: the required `usable_context`; None: nothing is required.
    """
    check = checks.USABLE_CONTEXT
    if reason := why_nothing_beyond(losses):
        return all_not_measured(check, reason, is_final=True)
    if limit_nats is None:
        reason = "usable_context needs a ce_loss limit that is a maximal ce_increase"
        return all_not_measured(check, reason, is_final=True)
    if fault := first_not_finite(losses):
        return all_not_finite(check, fault)
    n_training = losses.n_training_context_tokens
    assert n_training is not None  # WHY: why_nothing_beyond has returned otherwise
    band = _band(losses.by_position.running_increase)
    at_end = band.n[band.position == n_training - 1]
    if not at_end.size:
        return all_not_measured(check, f"fewer than two documents reach position {n_training - 1}")
    counts = band.n >= min(N_SEQUENCES_LEAST, at_end[0])
    position, n = band.position[counts], int(at_end[0])
    value, low, high = (
        _last_within(position, curve[counts], n_training, limit_nats) for curve in (band.value, band.high, band.low)
    )
    longest = int(position[-1]) + 1
    relative = counted("usable_context", check, value / n_training, n)
    if least is not None and (sample := _running_increase(losses, least * n_training)) is not None:
        proxy = ProxyMean(measure="running_increase", kind="max", value=limit_nats, unit="nats/token")
        relative = replace(relative, sample=sample, proxy=proxy)
    return (
        replace(relative, low=low / n_training, high=high / n_training),
        replace(counted("usable_context_tokens", check, value, n), low=low, high=high),
        counted("measured_context_tokens", check, longest, n),
    )


def _running_increase(losses: TextLosses, n_tokens: float) -> Ratio | None:
    """The increase up to the *n_tokens*-th position, of sequences that have it; None: fewer than two have it."""
    n_positions = math.ceil(n_tokens)
    if not 0 < n_positions <= losses.increase_nats.shape[1]:
        return None
    upto = losses.increase_nats[:, :n_positions].astype(np.float64)  # (n_sequences, n_positions)
    has = ~np.isnan(upto[:, -1])
    if has.sum() < 2:
        return None
    n_scored = (~np.isnan(upto[has])).sum(1).astype(np.float64)
    return Ratio(
        numerators=np.nansum(upto[has], 1),
        denominators=n_scored,
        ideal_value=0.0,
        largest_denominator=n_positions,
        rows=np.flatnonzero(has),
        n_without_value=int((~has).sum()),
    )


def _last_within(position: Counts, running: Floats, n_training: int, limit_nats: float) -> int:
    """Tokens of the longest context whose running increase stays within *limit_nats*, see `usable_context`; or 0."""
    within = running <= limit_nats
    leaves = np.flatnonzero(~within & (position >= n_training - 1))
    stays = within & (position < position[leaves[0]]) if leaves.size else within
    return int(position[stays][-1]) + 1 if stays.any() else 0


def _band(sums: RatioSums) -> _Band:
    """The ratio at every position, with the interval of `estimates.ratio_of`."""
    has = (sums.n >= 2) & (sums.denominator > 0)
    n, top, bottom = sums.n[has], sums.numerator[has], sums.denominator[has]
    ratio = top / bottom
    residuals_squared = (
        sums.numerator_squared[has]
        - 2 * ratio * sums.numerator_times_denominator[has]
        + ratio**2 * sums.denominator_squared[has]
    )
    # WHY maximum: rounding may make a residual of equal numbers negative; NaN stays NaN
    error = np.sqrt(np.maximum(residuals_squared, 0) / (n - 1) / n) / (bottom / n)
    margin = stdtrit(n - 1, 1 - ALPHA / 2) * error
    finite = np.isfinite(ratio) & np.isfinite(margin)
    return _Band(
        position=np.flatnonzero(has)[finite],
        value=ratio[finite],
        low=(ratio - margin)[finite],
        high=(ratio + margin)[finite],
        n=n[finite],
    )


def _curve(check: checks.Check, measure: str, band: _Band) -> Curve:
    unit = check.unit_of(measure)
    assert unit is not None, measure
    return Curve(
        measure=measure,
        unit=unit,
        position=tuple(band.position.tolist()),
        value=tuple(band.value.tolist()),
        low=tuple(band.low.tolist()),
        high=tuple(band.high.tolist()),
        n_sequences=tuple(band.n.tolist()),
    )
