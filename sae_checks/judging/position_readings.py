"""
Losses by position -> curves with pointwise intervals, and how long a context may get before an SAE costs too much.

At every position the sequence is the unit that was sampled; positions are not independent of each other, so the
intervals hold one by one, not all at once.
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
"""Positions that fewer sequences have say nothing of the usable context, unless the training context's end is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One measure at every position that at least two sequences have; columns of equal length, positions rising."""

    measure: str
    unit: str
    position: tuple[int, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: tuple[int, ...]
    """sequences that have the position."""


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
    Increase, KL, L0 and explained variance at every position.

    Explained variance at a position is 1 - sum |x - x^|^2 / sum |x - m|^2 with m the mean of x over the sequences *at
    that position*: what all texts share there (a position embedding, the first token's huge norm) is no variance to
    explain. Elsewhere each is the mean over sequences. Where a number is not finite the point is left out: the checks
    fail by name.
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
    The longest context up to which the SAE costs no more, on average over that context, than it may within its own.

    The running increase at position p is the mean increase over the positions up to p of the sequences that have p, so
    that short documents do not thin out what the long ones show. `usable_context_tokens` is p + 1 for the last p at
    which it is within *limit_nats*, as it is at every position from the training context's last one (or p, if that is
    earlier) to p. Earlier positions do not count against it: the limit is one on a mean over the training context, and
    the first few tokens of a text may well cost more. `usable_context` is the same over the training context: 1 and
    above is the gate. low and high are what the upper and the lower ends of the pointwise intervals give. An SAE that
    never leaves the limit is usable for `measured_context_tokens` at least, the longest context that was looked at.

    The last position of a curve is no mean over sequences, so that what is tested is one: the running increase at the
    end of a context of *least* times the training context, which is within *limit_nats* if `usable_context` is *least*
    or more, and only if, but for a curve that leaves the limit before and comes back.

    Args:
        losses: of the text pass.
        limit_nats: the highest mean increase that is allowed within the training context, in nats per token; None where
            the SAE's limit is on another measure.
        least: `usable_context` that is asked for, if it is.
    """
    check = checks.USABLE_CONTEXT
    if reason := why_nothing_beyond(losses):
        return all_not_measured(check, reason, is_final=True)
    if limit_nats is None:
        reason = "there is nothing to stay within: the ce_loss limit is no maximal ce_increase"
        return all_not_measured(check, reason, is_final=True)
    if fault := first_not_finite(losses):
        return all_not_finite(check, fault)
    n_training = losses.n_training_context_tokens
    assert n_training is not None  # or there would be nothing beyond
    band = _band(losses.by_position.running_increase)
    at_end = band.n[band.position == n_training - 1]
    if not at_end.size:
        return all_not_measured(check, f"fewer than two documents reach position {n_training - 1}")
    kept = band.n >= min(N_SEQUENCES_LEAST, at_end[0])
    position, n = band.position[kept], int(at_end[0])
    value, low, high = (
        _last_within(position, curve[kept], n_training, limit_nats) for curve in (band.value, band.high, band.low)
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
    """Each sequence's increases up to the *n_tokens*-th position, of those that have it; None: fewer than two do."""
    n_positions = math.ceil(n_tokens)
    if not 0 < n_positions <= losses.increase_nats.shape[1]:
        return None
    upto = losses.increase_nats[:, :n_positions].astype(np.float64)  # (n_sequences, n_positions)
    has = ~np.isnan(upto[:, -1])
    if has.sum() < 2:
        return None
    n_scored = (~np.isnan(upto[has])).sum(1).astype(np.float64)
    return Ratio(top=np.nansum(upto[has], 1), bottom=n_scored, best=0.0, n_silent=int((~has).sum()))


def _last_within(position: Counts, running: Floats, n_training: int, limit_nats: float) -> int:
    """Tokens of the longest context whose running increase is within *limit_nats*, see `usable_context`; 0: none."""
    within = running <= limit_nats
    leaves = np.flatnonzero(~within & (position >= n_training - 1))
    stays = within & (position < position[leaves[0]]) if leaves.size else within
    return int(position[stays][-1]) + 1 if stays.any() else 0


def _band(sums: RatioSums) -> _Band:
    """The ratio and Student's t on its linearisation, as `estimates.ratio_of` has it, at every position at once."""
    has = (sums.n >= 2) & (sums.bottom > 0)
    n, top, bottom = sums.n[has], sums.top[has], sums.bottom[has]
    ratio = top / bottom
    residuals_squared = (
        sums.top_squared[has] - 2 * ratio * sums.top_times_bottom[has] + ratio**2 * sums.bottom_squared[has]
    )
    # rounding may leave a residual of equal numbers below zero; NaN stays NaN
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
        n=tuple(band.n.tolist()),
    )
