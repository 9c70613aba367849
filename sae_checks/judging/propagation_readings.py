"""Losses at later SAEs -> readings of the checks propagation, next_sae and last_sae, and the matrix of all SAEs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sae_checks import checks
from sae_checks.judging.estimates import (
    NotMeasured,
    Reading,
    all_not_finite,
    all_not_measured,
    estimated,
    explained_variance,
    mean_of,
)
from sae_checks.judging.samples import Difference, LogRoot, Ratio
from sae_checks.losses import Counts, Floats, LaterSae, PropagationLosses, Reconstructions

LEAST_ERROR = 1e-4
"""Relative error below which a splice makes none: an exact reconstruction differs by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downstream:
    """What the splice of one SAE does to the activation that a later SAE reads."""

    sae_id: str
    """the later SAE."""
    hook: str
    """activation that it reads."""
    relative_error: float
    """root of mean |x' - x|^2 over mean |x|^2; x clean, x' with the splice."""
    residual_error: float
    """root of mean |x' - x|^2 over mean |r|^2; r the residual stream there."""
    error_growth: float | None
    """root of mean |x' - x|^2 over mean |x - x^|^2 of the splice itself; None: that is zero."""
    cosine: float
    """mean of cos(x, x')."""
    explained_variance_clean: float | None
    """of the later SAE on x; None: x does not vary."""
    explained_variance: float | None
    """of the later SAE on x'; None: x' does not vary."""
    l0_clean: float
    """active latents per token of the later SAE on x."""
    l0: float
    """active latents per token of the later SAE on x'."""


def propagation(losses: PropagationLosses) -> tuple[Reading, ...]:
    """
    Readings of `propagation`: relative error and cosine at the next and at the last later SAE.

    The relative error is the root of mean |x' - x|^2 over mean |x|^2, with x clean and x' spliced. `amplification_*` is
    the relative error over that of the splice itself, `own_error`. Intervals linearise the logarithm.
    """
    check, later = checks.PROPAGATION, losses.later
    if not later:
        return all_not_measured(check, "there is no SAE behind this one in the release")
    if fault := _not_finite(losses):
        return all_not_finite(check, fault)
    own = RootRatio.of(losses.own.error_squared, losses.own.norm_squared)
    if own is None:
        return all_not_measured(check, "the activations where it is spliced are zero")
    found: list[Reading] = [own.reading("own_error", check)]
    if own.value < LEAST_ERROR:  # fails, see `verdict`
        reason = f"the splice makes no error to follow (relative error {own.value:.1e})"
        return (*found, *(NotMeasured(measure=m.name, reason=reason) for m in check.measures[1:]))
    for name, one in (("next", later[0]), ("last", later[-1])):
        there = RootRatio.of(one.error_squared, one.norm_squared)
        if there is None:
            return all_not_measured(check, f"the activations at {one.hook} are zero")
        found += [
            there.reading(f"relative_error_{name}", check),
            mean_of(f"cosine_{name}", check, one.cosine, one.n_tokens),
            there.over(own, f"amplification_{name}", check),
        ]
    return tuple(found)


def next_sae(losses: PropagationLosses) -> tuple[Reading, ...]:
    """Readings of `next_sae`: explained variance and L0 of the next SAE of the release, clean and behind the splice."""
    return _later_sae(checks.NEXT_SAE, losses, 0, "next")


def last_sae(losses: PropagationLosses) -> tuple[Reading, ...]:
    """Readings of `last_sae`: as `next_sae`, of the last SAE of the release."""
    return _later_sae(checks.LAST_SAE, losses, -1, "last")


def matrix(losses: PropagationLosses) -> tuple[Downstream, ...]:
    """The effect of the splice at every later SAE; empty if a number is not finite, which fails the checks."""
    return () if _not_finite(losses) else tuple(_cell(one, losses.own) for one in losses.later)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RootRatio:
    """The root of a ratio of means."""

    value: float
    influence: Floats
    """(n_sequences,) of each sequence on the logarithm."""
    sample: Ratio

    @classmethod
    def of(cls, numerators: Floats, denominators: Floats) -> RootRatio | None:
        has = denominators > 0
        if not has.any():
            return None
        numerators, denominators = numerators[has], denominators[has]
        ratio = float(numerators.sum() / denominators.sum())
        influence = (
            np.zeros(len(numerators))
            if ratio == 0
            else (numerators - ratio * denominators) / denominators.mean() / ratio / 2
        )
        sample = Ratio(numerators=numerators, denominators=denominators, n_without_value=int((~has).sum()))
        return cls(value=math.sqrt(ratio), influence=influence, sample=sample)

    def reading(self, measure: str, check: checks.Check) -> Reading:
        return estimated(measure, check, self.value, self.value * self.influence, LogRoot(of=self.sample))

    def over(self, other: RootRatio, measure: str, check: checks.Check) -> Reading:
        value = self.value / other.value
        if len(self.influence) != len(other.influence):
            return NotMeasured(measure=measure, reason="not the same sequences")
        sample = LogRoot(of=self.sample, over=other.sample)
        return estimated(measure, check, value, value * (self.influence - other.influence), sample)


def _later_sae(check: checks.Check, losses: PropagationLosses, which: int, name: str) -> tuple[Reading, ...]:
    if not losses.later:
        return all_not_measured(check, "there is no SAE behind this one in the release")
    if fault := _not_finite(losses):
        return all_not_finite(check, fault)
    one = losses.later[which]
    before, after = explained_variance(one.clean), explained_variance(one.disturbed)
    if before is None or after is None:
        return all_not_measured(check, f"the activations at {one.hook} do not vary")
    n = one.n_tokens
    return (
        estimated(f"{name}_explained_variance_clean", check, *before),
        estimated(f"{name}_explained_variance", check, *after),
        estimated(
            f"{name}_explained_variance_loss",
            check,
            before[0] - after[0],
            before[1] - after[1],
            Difference(of=before[2], less=after[2], ideal_value=0.0),
        ),
        mean_of(f"{name}_l0_clean", check, one.clean.n_active.astype(np.float64), n),
        mean_of(f"{name}_l0", check, one.disturbed.n_active.astype(np.float64), n),
    )


def _cell(one: LaterSae, own: Reconstructions) -> Downstream:
    n, n_own = one.n_tokens.sum(), own.n_tokens.sum()
    error, of_own = one.error_squared.sum() / n, own.error_squared.sum() / n_own
    before, after = explained_variance(one.clean), explained_variance(one.disturbed)
    return Downstream(
        sae_id=one.sae_id,
        hook=one.hook,
        relative_error=math.sqrt(one.error_squared.sum() / max(1e-300, one.norm_squared.sum())),
        residual_error=math.sqrt(one.error_squared.sum() / max(1e-300, one.residual_norm_squared.sum())),
        error_growth=math.sqrt(error / of_own) if of_own > 0 else None,
        cosine=float(one.cosine.sum() / n),
        explained_variance_clean=None if before is None else before[0],
        explained_variance=None if after is None else after[0],
        l0_clean=float(one.clean.n_active.sum() / n),
        l0=float(one.disturbed.n_active.sum() / n),
    )


def _not_finite(losses: PropagationLosses) -> str | None:
    def named() -> Iterator[tuple[str, Floats | Counts]]:
        yield "|x - x^|^2 where it is spliced", losses.own.error_squared
        for one in losses.later:
            yield f"|x' - x|^2 at {one.hook}", one.error_squared
            yield f"the cosine at {one.hook}", one.cosine
            yield f"|x' - x^|^2 of {one.sae_id}", one.disturbed.error_squared

    for name, values in named():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            return f"{name} is {values[bad[0]]} in sequence {bad[0]}"
    return None
