"""
Losses -> the readings of each check: every measure of the catalogue, in its order.

What is per position stands in `curves`.
"""

from __future__ import annotations

import numpy as np

from sae_checks import checks
from sae_checks.estimates import (
    Estimate,
    NotFinite,
    NotMeasured,
    Reading,
    all_not_finite,
    all_not_measured,
    estimated,
    exp_of_mean,
    influence_on_ratio,
    mean_of,
    paired_drop,
    ratio_of,
    share_of,
)
from sae_checks.losses import Counts, Floats, ItemLosses, Span, TextLosses

__all__ = ["Estimate", "NotFinite", "NotMeasured", "Reading", "ce_loss", "lambada", "long_context", "sparsity"]


def ce_loss(losses: TextLosses) -> tuple[Reading, ...]:
    """
    What the splice costs within the training context, in nats per token.

    `ce_increase` is mean(CE spliced - CE clean) over scored tokens. `ce_recovered` is (ablated - spliced) / (ablated -
    clean) with zeros for the ablation, as SAE Lens defines it but under the splice's own mask. `kl` is KL(clean ||
    spliced).
    """
    span, check = losses.within, checks.CE_LOSS
    if fault := first_not_finite(losses):
        return all_not_finite(check, fault)
    n = span.n_tokens
    clean, spliced, ablated = span.ce_clean_nats, span.ce_spliced_nats, losses.ce_ablated_nats
    return (
        mean_of("ce_clean", check, clean, n),
        mean_of("ce_spliced", check, spliced, n),
        mean_of("ce_ablated", check, ablated, n),
        mean_of("ce_increase", check, spliced - clean, n),
        _recovered(ablated - spliced, ablated - clean, n),
        mean_of("kl", check, span.kl_nats, n),
    )


def long_context(losses: TextLosses) -> tuple[Reading, ...]:
    """
    How much more the splice costs beyond the SAE's training context than within it.

    `degradation` is the increase beyond minus the increase within, over the sequences that reach beyond.
    """
    check = checks.LONG_CONTEXT
    if reason := why_nothing_beyond(losses):
        return all_not_measured(check, reason)
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
    return (
        mean_of("ce_increase_within", check, within, n_within),
        mean_of("ce_increase_beyond", check, beyond, n_beyond),
        estimated("degradation", check, value, influence),
    )


def sparsity(losses: TextLosses) -> tuple[Reading, ...]:
    """
    Active latents per token, and explained variance 1 - E|x - x^|^2 / (E|x|^2 - |E x|^2), within the training context.

    Predicting the mean gives 0, a perfect reconstruction 1, and scaling x and x^ together changes nothing.
    """
    check, sums = checks.SPARSITY, losses.reconstructions
    n = sums.n_tokens
    of_x = sums.sum.sum(axis=1)
    for name, values in (("|x - x^|^2", sums.error_squared), ("|x|^2", sums.norm_squared), ("x", of_x)):
        if (row := _first_bad_row(values)) is not None:
            where = f"{name} is {values[row]} in {_sequence(losses, row)}"
            return all_not_finite(check, where)
    if not n.any():
        return all_not_measured(check, "no token was replaced")
    mean = sums.sum.sum(axis=0) / n.sum()  # (d_in,)
    # |x - mean|^2 summed over a sequence's tokens, from its sums alone
    spread = sums.norm_squared - 2 * sums.sum @ mean + n * float(mean @ mean)  # (n_sequences,)
    if spread.sum() <= 1e-12 * max(1.0, sums.norm_squared.sum()):
        explained: Reading = NotMeasured(measure="explained_variance", reason="the activations do not vary")
    else:
        has = n > 0
        explained = ratio_of("explained_variance", check, (spread - sums.error_squared)[has], spread[has])
    return (mean_of("l0", check, sums.n_active.astype(np.float64), n), explained)


def lambada(losses: ItemLosses) -> tuple[Reading, ...]:
    """
    The share of passages whose last word is predicted, clean and spliced, on the same passages.

    Correct: every token of the word is the most probable one given the true tokens before it. Perplexity: exp of minus
    the mean over passages of the word's summed log-probability. Both as in lm-evaluation-harness.
    """
    check = checks.LAMBADA
    clean, spliced = losses.clean_logprob_nats, losses.spliced_logprob_nats
    for name, values in (("clean log-probability", clean), ("spliced log-probability", spliced)):
        if (row := _first_bad_row(values)) is not None:
            where = f"the {name} of item {losses.items[row]} is {values[row]}"
            return all_not_finite(check, where)
    return (
        share_of("accuracy_clean", losses.clean_correct),
        share_of("accuracy_spliced", losses.spliced_correct),
        paired_drop("accuracy_drop", losses.clean_correct, losses.spliced_correct),
        exp_of_mean("perplexity_clean", check, -clean),
        exp_of_mean("perplexity_spliced", check, -spliced),
        exp_of_mean("perplexity_ratio", check, clean - spliced),
    )


def _increase(span: Span) -> Floats:
    return span.ce_spliced_nats - span.ce_clean_nats


def _recovered(regained: Floats, lost: Floats, n_tokens: Counts) -> Reading:
    loss = mean_of("ce_recovered", checks.CE_LOSS, lost, n_tokens)
    if not isinstance(loss, Estimate):
        return loss
    if loss.low <= 0:
        return NotMeasured(measure="ce_recovered", reason="the ablation costs nothing measurable to compare with")
    has = n_tokens > 0
    return ratio_of("ce_recovered", checks.CE_LOSS, regained[has], lost[has])


def why_nothing_beyond(losses: TextLosses) -> str | None:
    """Why no sequence could reach beyond the training context, whatever the documents; None: it could."""
    if losses.n_training_context_tokens is None:
        return "the SAE's training context is unknown (no context_size in its cfg.json)"
    if losses.n_context_tokens > losses.n_training_context_tokens:
        return None
    return (
        f"there is no room beyond the training context: sequences have {losses.n_context_tokens} tokens, the SAE was "
        f"trained on {losses.n_training_context_tokens}"
    )


def _first_bad_row(values: Floats) -> int | None:
    bad = np.flatnonzero(~np.isfinite(values))
    return int(bad[0]) if len(bad) else None


def first_not_finite(losses: TextLosses) -> str | None:
    """The first number of the text pass that is not finite, in words."""
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
    for name, values in (*named, ("ablated CE", losses.ce_ablated_nats)):
        if (row := _first_bad_row(values)) is not None:
            return f"{name} is {values[row]} in {_sequence(losses, row)}"
    return None


def _sequence(losses: TextLosses, row: int) -> str:
    return f"sequence {row} (document {losses.documents[row]} of the corpus)"
