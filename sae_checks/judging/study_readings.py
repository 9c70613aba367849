"""Losses of the studies -> what a splice does further down, in company, and against errors drawn at random."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sae_checks import checks
from sae_checks.judging.estimates import (
    Estimate,
    NotMeasured,
    Reading,
    all_not_finite,
    all_not_measured,
    estimated,
    mean_of,
    paired_drop,
    ratio_of,
    share_of,
)
from sae_checks.judging.samples import Difference, Explained, Ratio, Root
from sae_checks.losses import (
    Counts,
    Disturbed,
    Floats,
    ItemLosses,
    NeighbourLosses,
    PropagationLosses,
    RandomErrorLosses,
    Reconstructions,
    Span,
    StackItemLosses,
    StackLosses,
)

LEAST_ERROR = 1e-4
"""Relative error below which there is nothing to follow: what rounding leaves of an exact reconstruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downstream:
    """One cell of the matrix: what the splice of one SAE does at a later one."""

    sae_id: str
    """the later one."""
    hook: str
    relative_error: float
    """root of the mean |x' - x|^2 over the mean |x|^2."""
    residual_error: float
    """the same over the mean |r|^2 of the residual stream there."""
    error_growth: float | None
    """root of the mean |x' - x|^2 over the mean |x - x^|^2 of the splice itself; None: that is zero."""
    cosine: float
    """mean of cos(x, x')."""
    explained_variance_clean: float | None
    """None: the activations do not vary."""
    explained_variance: float | None
    """of what reaches it."""
    l0_clean: float
    l0: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The first SAEs of a stack, up to and with *sae_id*."""

    sae_id: str
    readings: tuple[Estimate, ...]


def propagation(losses: PropagationLosses) -> tuple[Reading, ...]:
    """
    How far the splice's error is carried: relative error and cosine at the next and the last later SAE.

    Relative error is the root of mean |x' - x|^2 over mean |x|^2. `amplification_*` is that over the relative error of
    the splice itself, `own_error`; intervals by linearising the logarithm.
    """
    check, later = checks.PROPAGATION, losses.later
    if not later:
        return all_not_measured(check, "there is no SAE behind this one in the release")
    if fault := _not_finite(losses):
        return all_not_finite(check, fault)
    own = _Root.of(losses.own.error_squared, losses.own.norm_squared)
    if own is None or own.value < LEAST_ERROR:
        value = 0.0 if own is None else own.value
        return all_not_measured(check, f"the splice makes no error to follow (relative error {value:.1e})")
    found: list[Reading] = [own.reading("own_error", check)]
    for name, one in (("next", later[0]), ("last", later[-1])):
        there = _Root.of(one.error_squared, one.norm_squared)
        if there is None:
            return all_not_measured(check, f"the activations at {one.hook} are zero")
        found += [
            there.reading(f"relative_error_{name}", check),
            mean_of(f"cosine_{name}", check, one.cosine, one.n_tokens),
            there.over(own, f"amplification_{name}", check),
        ]
    return tuple(found)


def next_sae(losses: PropagationLosses) -> tuple[Reading, ...]:
    """What the splice costs the next SAE of the release: explained variance and L0 of what reaches it."""
    return _later_sae(checks.NEXT_SAE, losses, 0, "next")


def last_sae(losses: PropagationLosses) -> tuple[Reading, ...]:
    """What the splice costs the last SAE of the release; see `next_sae`."""
    return _later_sae(checks.LAST_SAE, losses, -1, "last")


def matrix(losses: PropagationLosses) -> tuple[Downstream, ...]:
    """What the splice does at every later SAE; empty where a number is not finite, which the checks say by name."""
    return () if _not_finite(losses) else tuple(_cell(one, losses.own) for one in losses.later)


def own_layer(losses: NeighbourLosses) -> tuple[Reading, ...]:
    """
    How much more the SAE costs in the blocks beside its own than where it belongs, in nats per token.

    `own_layer_margin` is the increase at the cheapest neighbour minus the increase at home. An SAE that is cheaper
    elsewhere carries the wrong layer's name.
    """
    check, own = checks.OWN_LAYER, losses.own
    if not losses.spans:
        return all_not_measured(check, "the model has no such place in another block")
    for name, span in (("its own hook", own), *zip(losses.hooks, losses.spans, strict=True)):
        if not np.isfinite(span.ce_spliced_nats).all():
            return all_not_finite(check, f"spliced CE at {name}")
    increase = _increase(own)
    if not own.n_tokens.any():
        return all_not_measured(check, "no token was scored")
    costs = [float(_increase(span).sum()) for span in losses.spans]
    cheapest = losses.spans[int(np.argmin(costs))]
    return (
        mean_of("increase_at_home", check, increase, own.n_tokens, best=0.0),
        mean_of("increase_at_neighbour", check, _increase(cheapest), cheapest.n_tokens),
        mean_of("own_layer_margin", check, _increase(cheapest) - increase, own.n_tokens),
    )


def random_error(losses: RandomErrorLosses) -> tuple[Reading, ...]:
    """
    KL(clean || spliced) over KL(clean || disturbed), the disturbance being as large at every token and drawn at random.

    Above 1 the SAE's error is worse than chance. Ratios of means, linearised.
    """
    check = checks.RANDOM_ERROR
    named = (
        ("kl_spliced", losses.kl_spliced_nats),
        ("kl_isotropic", losses.kl_isotropic_nats),
        ("kl_covariance", losses.kl_covariance_nats),
    )
    for name, values in named:
        if not np.isfinite(values).all():
            return all_not_finite(check, f"{name} of sequence {int(np.flatnonzero(~np.isfinite(values))[0])}")
    size = _Root.of(losses.error_squared, losses.norm_squared)
    if size is None or size.value < LEAST_ERROR:
        return all_not_measured(check, "the splice makes no error to compare with")
    has = losses.n_tokens > 0
    found = [mean_of(name, check, values, losses.n_tokens) for name, values in named]
    for name, values in named[1:]:
        measure = name.replace("kl_", "kl_ratio_")
        if values[has].sum() <= 0:
            found.append(NotMeasured(measure=measure, reason="the random error changes nothing"))
        else:
            top, bottom = losses.kl_spliced_nats[has], values[has]
            found.append(ratio_of(measure, check, top, bottom, Ratio(top=top, bottom=bottom)))
    return tuple(found)


def stacked(losses: StackLosses) -> tuple[Reading, ...]:
    """Loss and KL with all SAEs of the stack in place at once, in nats per token."""
    return _of_span(losses.steps[-1])


def stacked_lambada(losses: StackItemLosses) -> tuple[Reading, ...]:
    """Lambada with all SAEs of the stack in place at once."""
    return _of_items(losses.steps[-1])


def steps(losses: StackLosses | StackItemLosses) -> tuple[Step, ...]:
    """What one SAE costs, what the first two cost together, ... ; measures that could not be made are left out."""
    found = []
    of_steps: tuple[Span | ItemLosses, ...] = losses.steps
    for sae_id, step in zip(losses.sae_ids, of_steps, strict=True):
        readings = _of_span(step) if isinstance(step, Span) else _of_items(step)
        found.append(Step(sae_id=sae_id, readings=tuple(r for r in readings if isinstance(r, Estimate))))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Root:
    """The root of a ratio of means, and each sequence's pull on its logarithm."""

    value: float
    pull: Floats
    sample: Ratio

    @classmethod
    def of(cls, top: Floats, bottom: Floats) -> _Root | None:
        has = bottom > 0
        if not has.any():
            return None
        top, bottom = top[has], bottom[has]
        ratio = float(top.sum() / bottom.sum())
        pull = np.zeros(len(top)) if ratio == 0 else (top - ratio * bottom) / bottom.mean() / ratio / 2
        sample = Ratio(top=top, bottom=bottom, n_silent=int((~has).sum()))
        return cls(value=math.sqrt(ratio), pull=pull, sample=sample)

    def reading(self, measure: str, check: checks.Check) -> Reading:
        return estimated(measure, check, self.value, self.value * self.pull, Root(of=self.sample))

    def over(self, other: _Root, measure: str, check: checks.Check) -> Reading:
        value = self.value / other.value
        if len(self.pull) != len(other.pull):
            return NotMeasured(measure=measure, reason="not the same sequences")
        sample = Root(of=self.sample, over=other.sample)
        return estimated(measure, check, value, value * (self.pull - other.pull), sample)


def _later_sae(check: checks.Check, losses: PropagationLosses, which: int, name: str) -> tuple[Reading, ...]:
    if not losses.later:
        return all_not_measured(check, "there is no SAE behind this one in the release")
    if fault := _not_finite(losses):
        return all_not_finite(check, fault)
    one = losses.later[which]
    before, after = _explained(one.clean), _explained(one.disturbed)
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
            Difference(of=before[2], less=after[2], best=0.0),
        ),
        mean_of(f"{name}_l0_clean", check, one.clean.n_active.astype(np.float64), n),
        mean_of(f"{name}_l0", check, one.disturbed.n_active.astype(np.float64), n),
    )


def _explained(sums: Reconstructions) -> tuple[float, Floats, Explained] | None:
    """Explained variance as in `corpus_readings`, each sequence's pull, and the sample; None: nothing varies."""
    n = sums.n_tokens
    if not n.any():
        return None
    mean = sums.sum.sum(axis=0) / n.sum()  # (d,)
    spread = sums.norm_squared - 2 * sums.sum @ mean + n * float(mean @ mean)  # (n_sequences,)
    if spread.sum() <= 1e-12 * max(1.0, sums.norm_squared.sum()):
        return None
    has = n > 0
    top, bottom = (spread - sums.error_squared)[has], spread[has]
    value = float(top.sum() / bottom.sum())
    sample = Explained(
        error_squared=sums.error_squared[has],
        norm_squared=sums.norm_squared[has],
        sum=sums.sum[has],
        n_tokens=n[has],
        n_silent=int((~has).sum()),
    )
    return value, (top - value * bottom) / bottom.mean(), sample


def _cell(one: Disturbed, own: Reconstructions) -> Downstream:
    n, n_own = one.n_tokens.sum(), own.n_tokens.sum()
    error, of_own = one.error_squared.sum() / n, own.error_squared.sum() / n_own
    before, after = _explained(one.clean), _explained(one.disturbed)
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


def _of_span(span: Span) -> tuple[Reading, ...]:
    check, n = checks.STACKED, span.n_tokens
    for name, values in (("spliced CE", span.ce_spliced_nats), ("KL", span.kl_nats)):
        if not np.isfinite(values).all():
            return all_not_finite(check, f"{name} of sequence {int(np.flatnonzero(~np.isfinite(values))[0])}")
    return (
        mean_of("stack_ce_clean", check, span.ce_clean_nats, n),
        mean_of("stack_ce_spliced", check, span.ce_spliced_nats, n),
        mean_of("stack_ce_increase", check, _increase(span), n, best=0.0),
        mean_of("stack_kl", check, span.kl_nats, n, best=0.0),
    )


def _of_items(items: ItemLosses) -> tuple[Reading, ...]:
    return (
        share_of("stack_accuracy_clean", items.clean_correct, None),
        share_of("stack_accuracy_spliced", items.spliced_correct, None),
        paired_drop("stack_accuracy_drop", items.clean_correct, items.spliced_correct, None),
    )


def _increase(span: Span) -> Floats:
    return span.ce_spliced_nats - span.ce_clean_nats


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
