"""Losses of the studies -> readings of the checks own_layer, random_error, stacked and stacked_lambada."""

from __future__ import annotations

import math
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
    explained_variance,
    mean_of,
    paired_drop,
    ratio_of,
    share_of,
)
from sae_checks.judging.propagation_readings import LEAST_ERROR, RootRatio
from sae_checks.judging.samples import ExplainedVariance, Ratio
from sae_checks.losses import (
    Floats,
    ItemLosses,
    NeighbourLosses,
    RandomErrorLosses,
    Reconstructions,
    Span,
    StackItemLosses,
    StackLosses,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStep:
    """Readings with the first SAEs of a stack spliced, up to and including *sae_id*."""

    sae_id: str
    estimates: tuple[Estimate, ...]


def own_layer(losses: NeighbourLosses) -> tuple[Reading, ...]:
    """
    Readings of `own_layer`: the cost of the SAE at its own hook and in the neighbouring blocks, in nats per token.

    `own_layer_margin` is the increase at the cheapest neighbour minus the increase at its own hook. An SAE that is
    cheaper elsewhere has the wrong layer's name. Losses at different places of a block do not compare, since the model
    needs some of them more than others: `own_place_ratio` is the root of the unexplained variance at the place of its
    block that it explains best over that at its own hook.
    """
    check, own = checks.OWN_LAYER, losses.own
    if not losses.spans and not losses.fits:
        return all_not_measured(check, "the model has no such hook in a neighbouring block")
    for name, span in (("its own hook", own), *zip(losses.hooks, losses.spans, strict=True)):
        if not np.isfinite(span.ce_spliced_nats).all():
            return all_not_finite(check, f"spliced CE at {name}")
    increase = _increase(own)
    if not own.n_tokens.any():
        return all_not_measured(check, "no token was scored")
    at_home = mean_of("increase_at_home", check, increase, own.n_tokens, ideal_value=0.0)
    if not losses.spans:
        reason = "the model has no such hook in a neighbouring block"
        beside: tuple[Reading, ...] = tuple(
            NotMeasured(measure=name, reason=reason, is_final=True)
            for name in ("increase_at_neighbour", "own_layer_margin")
        )
    else:
        costs = [float(_increase(span).sum()) for span in losses.spans]
        cheapest = losses.spans[int(np.argmin(costs))]
        beside = (
            mean_of("increase_at_neighbour", check, _increase(cheapest), cheapest.n_tokens),
            mean_of("own_layer_margin", check, _increase(cheapest) - increase, own.n_tokens),
        )
    return (at_home, beside[0], *_at_places(losses), beside[1])


def _at_places(losses: NeighbourLosses) -> tuple[Reading, ...]:
    """Explained variance at its own hook and at the place of its block that it explains best, and `own_place_ratio`."""
    check = checks.OWN_LAYER
    own, *others = (_fit(fit) for fit in losses.fits) if losses.fits else (None,)
    known = [other for other in others if other is not None]
    if own is None or not known or own[1].value < LEAST_ERROR:
        names = ("explained_variance_at_home", "explained_variance_at_place", "own_place_ratio")
        reason = "no other place of its block can be compared" if own is None or not known else "it makes no error"
        return tuple(NotMeasured(measure=name, reason=reason, is_final=True) for name in names)
    best = min(known, key=lambda fit: fit[1].value)
    return (
        estimated("explained_variance_at_home", check, *own[0]),
        estimated("explained_variance_at_place", check, *best[0]),
        best[1].over(own[1], "own_place_ratio", check),
    )


def _fit(sums: Reconstructions) -> tuple[tuple[float, Floats, ExplainedVariance], RootRatio] | None:
    """(explained variance, root of the unexplained variance); None: the activation does not vary."""
    if (found := explained_variance(sums)) is None:
        return None
    numerators, spread = found[2].first(found[2].n)
    unexplained = RootRatio.of(spread - numerators, spread)
    return None if unexplained is None or not math.isfinite(unexplained.value) else (found, unexplained)


def random_error(losses: RandomErrorLosses) -> tuple[Reading, ...]:
    """
    Readings of `random_error`: KL(clean || spliced) over the KL of a random error of the same size at every token.

    Above 1, the SAE's error is worse than a random one. Ratios of means, linearised.
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
    size = RootRatio.of(losses.error_squared, losses.norm_squared)
    if size is None or size.value < LEAST_ERROR:
        return all_not_measured(check, "the splice makes no error to compare with")
    has = losses.n_tokens > 0
    found = [mean_of(name, check, values, losses.n_tokens) for name, values in named]
    for name, values in named[1:]:
        measure = name.replace("kl_", "kl_ratio_")
        if values[has].sum() <= 0:
            found.append(NotMeasured(measure=measure, reason="the random error changes nothing"))
        else:
            numerators, denominators = losses.kl_spliced_nats[has], values[has]
            found.append(
                ratio_of(
                    measure, check, numerators, denominators, Ratio(numerators=numerators, denominators=denominators)
                )
            )
    return tuple(found)


def stacked(losses: StackLosses) -> tuple[Reading, ...]:
    """Readings of `stacked`: loss and KL with all SAEs of the stack spliced at once, in nats per token."""
    return _of_span(losses.steps[-1])


def stacked_lambada(losses: StackItemLosses) -> tuple[Reading, ...]:
    """Readings of `stacked_lambada`: accuracy with all SAEs of the stack spliced at once."""
    return _of_items(losses.steps[-1])


def stack_steps(losses: StackLosses | StackItemLosses) -> tuple[StackStep, ...]:
    """What one SAE costs, what the first two cost together, ... ; measures that could not be made are left out."""
    found = []
    of_steps: tuple[Span | ItemLosses, ...] = losses.steps
    for sae_id, step in zip(losses.sae_ids, of_steps, strict=True):
        readings = _of_span(step) if isinstance(step, Span) else _of_items(step)
        found.append(StackStep(sae_id=sae_id, estimates=tuple(r for r in readings if isinstance(r, Estimate))))
    return tuple(found)


def _of_span(span: Span) -> tuple[Reading, ...]:
    check, n = checks.STACKED, span.n_tokens
    for name, values in (("spliced CE", span.ce_spliced_nats), ("KL", span.kl_nats)):
        if not np.isfinite(values).all():
            return all_not_finite(check, f"{name} of sequence {int(np.flatnonzero(~np.isfinite(values))[0])}")
    return (
        mean_of("stack_ce_clean", check, span.ce_clean_nats, n),
        mean_of("stack_ce_spliced", check, span.ce_spliced_nats, n),
        mean_of("stack_ce_increase", check, _increase(span), n, ideal_value=0.0),
        mean_of("stack_kl", check, span.kl_nats, n, ideal_value=0.0),
    )


def _of_items(items: ItemLosses) -> tuple[Reading, ...]:
    return (
        share_of("stack_accuracy_clean", items.clean_correct, None),
        share_of("stack_accuracy_spliced", items.spliced_correct, None),
        paired_drop("stack_accuracy_drop", items.clean_correct, items.spliced_correct, None),
    )


def _increase(span: Span) -> Floats:
    return span.ce_spliced_nats - span.ce_clean_nats
