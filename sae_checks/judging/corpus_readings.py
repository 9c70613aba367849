"""
Losses of the text pass -> readings of the checks ce_loss, long_context and sparsity; and of distinct.

Readings come in the order of the catalogue's measures. `position_readings` has the checks and curves by position.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sae_checks import checks
from sae_checks.judging.estimates import (
    Estimate,
    NotMeasured,
    Reading,
    all_not_finite,
    all_not_measured,
    counted,
    estimated,
    explained_variance,
    first_bad_row,
    influence_on_ratio,
    mean_of,
    ratio_of,
)
from sae_checks.judging.samples import Difference, Ratio
from sae_checks.losses import Counts, Flags, Floats, Span, TextLosses


def ce_loss(losses: TextLosses) -> tuple[Reading, ...]:
    """
    Readings of `ce_loss`: the cost of the splice within the training context, in nats per token.

    `ce_increase` is mean(CE spliced - CE clean) over scored tokens. `ce_recovered` is (ablated - spliced) / (ablated -
    clean) with zero ablation, as SAE Lens defines it, but at the positions that the splice replaces. `kl` is
    KL(clean || spliced).
    """
    span, check = losses.within, checks.CE_LOSS
    if fault := first_not_finite(losses):
        return all_not_finite(check, fault)
    n = span.n_tokens
    clean, spliced, ablated = span.ce_clean_nats, span.ce_spliced_nats, losses.ce_ablated_nats
    return (
        mean_of("ce_clean", check, clean, n),
        mean_of("ce_spliced", check, spliced, n),
        _no_ablation("ce_ablated") if ablated is None else mean_of("ce_ablated", check, ablated, n),
        mean_of("ce_increase", check, spliced - clean, n, ideal_value=0.0, n_tokens_most=losses.n_within_tokens),
        _no_ablation("ce_recovered") if ablated is None else _recovered(ablated - spliced, ablated - clean, n),
        mean_of("kl", check, span.kl_nats, n, ideal_value=0.0, n_tokens_most=losses.n_within_tokens),
    )


def long_context(losses: TextLosses) -> tuple[Reading, ...]:
    """
    Readings of `long_context`: the cost of the splice beyond the training context, compared with that within it.

    `degradation` is the increase beyond minus the increase within, over sequences that reach beyond.
    """
    check = checks.LONG_CONTEXT
    if reason := why_nothing_beyond(losses):
        return all_not_measured(check, reason, is_final=True)
    if fault := first_not_finite(losses):
        return all_not_finite(check, fault)
    reaches = (losses.beyond.n_tokens > 0) & (losses.within.n_tokens > 0)
    if not reaches.any():
        return all_not_measured(
            check, f"no document is longer than the training context of {losses.n_training_context_tokens} tokens"
        )
    within, beyond = _increase(losses.within)[reaches], _increase(losses.beyond)[reaches]
    n_within, n_beyond = losses.within.n_tokens[reaches], losses.beyond.n_tokens[reaches]
    influence = influence_on_ratio(beyond, n_beyond) - influence_on_ratio(within, n_within)
    value = float(beyond.sum() / n_beyond.sum() - within.sum() / n_within.sum())
    n_within_most = losses.n_within_tokens
    earlier, later = (
        Ratio(
            numerators=numerators,
            denominators=n_tokens.astype(np.float64),
            ideal_value=0.0,
            largest_denominator=n_most,
            rows=np.flatnonzero(reaches),
            n_without_value=int((~reaches).sum()),
        )
        for numerators, n_tokens, n_most in (
            (within, n_within, n_within_most),
            (beyond, n_beyond, losses.n_context_tokens - n_within_most),
        )
    )
    return (
        estimated("ce_increase_within", check, *_of_ratio(earlier)),
        estimated("ce_increase_beyond", check, *_of_ratio(later)),
        estimated("degradation", check, value, influence, Difference(of=later, less=earlier, ideal_value=0.0)),
    )


def sparsity(losses: TextLosses, *, recorded_l0: float | None = None, k: int | None = None) -> tuple[Reading, ...]:
    """
    Readings of `sparsity` within the training context: active latents per token, and explained variance.

    Explained variance is 1 - E|x - x^|^2 / (E|x|^2 - |E x|^2): 0 for predicting the mean, 1 for a perfect
    reconstruction, and unchanged if x and x^ are scaled together.

    `l0_max` is the largest number of active latents on any token; it is counted, so its interval is one number.
    `dead_latents` is the share of latents that were never active. More text only makes it smaller (by a quarter to a
    half at 16,000 tokens). So it is an upper bound: the low end is 0, and `replaced_tokens` says how many tokens were
    used.

    Args:
        losses: of the text pass.
        recorded_l0: the L0 that the release states; None or 0: it states none.
        k: the k of a TopK SAE, which no token may exceed; None for other architectures. A BatchTopK SAE has its k only
            on average.
    """
    check, sums = checks.SPARSITY, losses.reconstructions
    n = sums.n_tokens
    of_x = sums.target_sum.sum(axis=1)
    for name, values in (("|x - x^|^2", sums.error_squared), ("|x|^2", sums.norm_squared), ("x", of_x)):
        if (row := first_bad_row(values)) is not None:
            where = f"{name} is {values[row]} in {_sequence(losses, row)}"
            return all_not_finite(check, where)
    if not n.any():
        return all_not_measured(check, "no token was replaced")
    found = explained_variance(sums)
    explained: Reading = (
        NotMeasured(measure="explained_variance", reason="the activations do not vary")
        if found is None
        else estimated("explained_variance", check, *found)
    )
    n_sequences = int((n > 0).sum())
    l0 = mean_of("l0", check, sums.n_active.astype(np.float64), n)
    most = int(sums.max_active.max())
    return (
        l0,
        _relative_to("l0_ratio", l0, recorded_l0, "the release does not state its L0"),
        counted("l0_max", check, most, n_sequences),
        NotMeasured(measure="l0_max_of_k", reason="not a TopK SAE whose k is known")
        if k is None
        else counted("l0_max_of_k", check, most / k, n_sequences),
        _dead(losses.ever_active, n_sequences),
        counted("replaced_tokens", check, int(n.sum()), n_sequences),
        explained,
    )


def distinct(n_copies: int) -> tuple[Reading, ...]:
    """Reading of `distinct`: the number of other SAEs in the release with the same weights."""
    return (counted("copies", checks.DISTINCT, n_copies, 1),)


def _increase(span: Span) -> Floats:
    return span.ce_spliced_nats - span.ce_clean_nats


def _relative_to(measure: str, of: Reading, recorded: float | None, reason: str) -> Reading:
    """*of* divided by *recorded*; not measured for *reason* if there is no recorded value."""
    if not isinstance(of, Estimate):
        return replace(of, measure=measure)
    if not recorded:  # TRAP: SAE Lens's registry has 0.0 for unknown
        return NotMeasured(measure=measure, reason=reason)
    unit = checks.SPARSITY.unit_of(measure)
    assert unit is not None, measure
    value, low, high = (x / recorded for x in (of.value, of.low, of.high))
    sample = (
        replace(of.sample, denominators=of.sample.denominators * recorded) if isinstance(of.sample, Ratio) else None
    )
    return Estimate(measure=measure, value=value, low=low, high=high, unit=unit, n=of.n, sample=sample)


def _of_ratio(sample: Ratio) -> tuple[float, Floats, Ratio]:
    """(value, influence, sample) of a ratio, the last arguments of `estimated`."""
    value = float(sample.numerators.sum() / sample.denominators.sum())
    return value, (sample.numerators - value * sample.denominators) / sample.denominators.mean(), sample


def _dead(ever_active: Flags | None, n: int) -> Reading:
    if ever_active is None:
        return NotMeasured(measure="dead_latents", reason="the SAE does not say which latents are active")
    share = 1 - float(ever_active.mean())
    return replace(counted("dead_latents", checks.SPARSITY, share, n), low=0.0)


def _no_ablation(measure: str) -> NotMeasured:
    return NotMeasured(measure=measure, reason="ablation was not measured; --sae-profile=full measures it")


def _recovered(regained: Floats, lost: Floats, n_tokens: Counts) -> Reading:
    loss = mean_of("ce_recovered", checks.CE_LOSS, lost, n_tokens)
    if not isinstance(loss, Estimate):
        return loss
    if loss.low <= 0:
        return NotMeasured(measure="ce_recovered", reason="the ablation has no measurable cost to compare with")
    has = n_tokens > 0
    n_without_value = int((~has).sum())
    sample = Ratio(
        numerators=regained[has],
        denominators=lost[has],
        ideal_value=1.0,
        n_without_value=n_without_value,
        has_positive_denominators=False,
    )
    return ratio_of("ce_recovered", checks.CE_LOSS, regained[has], lost[has], sample)


def why_nothing_beyond(losses: TextLosses) -> str | None:
    """Why no sequence of any document can reach beyond the training context; None: it can."""
    if losses.n_training_context_tokens is None:
        return "the SAE's training context is unknown (no context_size in its cfg.json; --sae-train-context=N says it)"
    if losses.n_context_tokens > losses.n_training_context_tokens:
        return None
    return (
        f"there is no room beyond the training context: sequences have {losses.n_context_tokens} tokens, the SAE was "
        f"trained on {losses.n_training_context_tokens}"
    )


def first_not_finite(losses: TextLosses) -> str | None:
    """The first number of the text pass that is not finite, in words; None: all are finite."""
    spans = ((losses.within, "within"), (losses.beyond, "beyond"))
    named = [
        (f"{name} {place} the training context", values)
        for span, place in spans
        for name, values in (
            ("clean CE", span.ce_clean_nats),
            ("spliced CE", span.ce_spliced_nats),
            ("KL", span.kl_nats),
        )
    ]
    ablated = () if losses.ce_ablated_nats is None else (("ablated CE", losses.ce_ablated_nats),)
    for name, values in (*named, *ablated):
        if (row := first_bad_row(values)) is not None:
            return f"{name} is {values[row]} in {_sequence(losses, row)}"
    return None


def _sequence(losses: TextLosses, row: int) -> str:
    return f"sequence {row} (document {losses.documents[row]} of the corpus)"
