"""
Losses -> estimates with intervals, or a reason why there is none.

Every mean is a ratio of sums over sequences (never a mean of ratios), and its interval takes the sequence, not the
token, as the unit that was sampled: tokens of one document are not independent. Intervals are two-sided, nominally 95 %
(Student's t on the linearised ratio; Cochran 1977, section 6); with skewed increases and 64 sequences they were seen to
cover 93 % at a coefficient of variation of 0.66 and 89 % at 1.3, missing mostly at the upper end. All is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtri, stdtrit

from sae_checks import checks
from sae_checks.losses import ChoiceLosses, Counts, Flags, Floats, ItemLosses, Span, TextLosses

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One measured value."""

    measure: str
    value: float
    low: float
    high: float
    """low <= value <= high; the interval misses the true value with probability ALPHA, nominally."""
    unit: str
    n: int
    """sequences or items behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMeasured:
    """Why there is no value."""

    measure: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFinite:
    """A NaN or an infinity among what was measured: never averaged away, never compared."""

    measure: str
    where: str
    """which number of which sequence or item."""


Reading = Estimate | NotMeasured | NotFinite


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The mean increase at one position."""

    position: int
    value: float
    """nats/token."""
    low: float
    high: float
    n: int
    """sequences that have this position."""


def ce_loss(losses: TextLosses) -> tuple[Reading, ...]:
    """
    What the splice costs within the training context, in nats per token.

    `ce_increase` is mean(CE spliced - CE clean) over scored tokens. `ce_recovered` is (ablated - spliced) / (ablated -
    clean) with zeros for the ablation, as SAE Lens defines it but under the splice's own mask. `kl` is KL(clean ||
    spliced).
    """
    span, check = losses.within, checks.CE_LOSS
    if fault := _first_not_finite(losses):
        return tuple(NotFinite(measure=m.name, where=fault) for m in check.measures)
    n = span.n_tokens
    clean, spliced, ablated = span.ce_clean_nats, span.ce_spliced_nats, losses.ce_ablated_nats
    return (
        _mean("ce_clean", check, clean, n),
        _mean("ce_spliced", check, spliced, n),
        _mean("ce_ablated", check, ablated, n),
        _mean("ce_increase", check, spliced - clean, n),
        _recovered(ablated - spliced, ablated - clean, n),
        _mean("kl", check, span.kl_nats, n),
    )


def long_context(losses: TextLosses) -> tuple[Reading, ...]:
    """
    How much more the splice costs beyond the SAE's training context than within it.

    `degradation` is the increase beyond minus the increase within, over the sequences that reach beyond.
    """
    check = checks.LONG_CONTEXT
    if losses.n_training_context_tokens is None:
        return _all_not_measured(check, "the SAE's training context is unknown (no context_size in its cfg.json)")
    if losses.n_context_tokens <= losses.n_training_context_tokens:
        reason = (
            f"there is no room beyond the training context: sequences have {losses.n_context_tokens} tokens, the SAE "
            f"was trained on {losses.n_training_context_tokens}"
        )
        return _all_not_measured(check, reason)
    if fault := _first_not_finite(losses):
        return tuple(NotFinite(measure=m.name, where=fault) for m in check.measures)
    reaches = (losses.beyond.n_tokens > 0) & (losses.within.n_tokens > 0)
    if not reaches.any():
        return _all_not_measured(
            check, f"no document is longer than the training context of {losses.n_training_context_tokens} tokens"
        )
    within, beyond = _increase(losses.within)[reaches], _increase(losses.beyond)[reaches]
    n_within, n_beyond = losses.within.n_tokens[reaches], losses.beyond.n_tokens[reaches]
    influence = _influence(beyond, n_beyond) - _influence(within, n_within)
    value = float(beyond.sum() / n_beyond.sum() - within.sum() / n_within.sum())
    return (
        _mean("ce_increase_within", check, within, n_within),
        _mean("ce_increase_beyond", check, beyond, n_beyond),
        _estimate("degradation", check, value, influence),
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
            return tuple(NotFinite(measure=m.name, where=where) for m in check.measures)
    if not n.any():
        return _all_not_measured(check, "no token was replaced")
    mean = sums.sum.sum(axis=0) / n.sum()  # (d_in,)
    # |x - mean|^2 summed over a sequence's tokens, from its sums alone
    spread = sums.norm_squared - 2 * sums.sum @ mean + n * float(mean @ mean)  # (n_sequences,)
    if spread.sum() <= 1e-12 * max(1.0, sums.norm_squared.sum()):
        explained: Reading = NotMeasured(measure="explained_variance", reason="the activations do not vary")
    else:
        has = n > 0
        explained = _ratio("explained_variance", check, (spread - sums.error_squared)[has], spread[has])
    return (_mean("l0", check, sums.n_active.astype(np.float64), n), explained)


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
            return tuple(NotFinite(measure=m.name, where=where) for m in check.measures)
    return (
        _share("accuracy_clean", losses.clean_correct),
        _share("accuracy_spliced", losses.spliced_correct),
        _paired_drop("accuracy_drop", losses.clean_correct, losses.spliced_correct),
        _exp_of_mean("perplexity_clean", -clean),
        _exp_of_mean("perplexity_spliced", -spliced),
        _exp_of_mean("perplexity_ratio", clean - spliced),
    )


def cbt(losses: ChoiceLosses) -> tuple[Reading, ...]:
    """
    The share of queries whose gap is filled rightly, clean and spliced, on the same queries.

    `chance` is the share that guessing gets right. `answer_logprob_drop` is what the right option loses of its
    log-probability among the options: it moves before choices do.
    """
    check = checks.CBT
    clean, spliced = losses.clean_logprob_nats, losses.spliced_logprob_nats
    for name, values in (("clean log-probability", clean), ("spliced log-probability", spliced)):
        if (row := _first_bad_row(values)) is not None:
            where = f"the {name} of query {losses.queries[row]} is {values[row]}"
            return tuple(NotFinite(measure=m.name, where=where) for m in check.measures)
    n = len(losses.queries)
    if n == 0:
        return _all_not_measured(check, "no query")
    chance = math.fsum(1 / losses.n_options) / n
    return (
        _share("choice_accuracy_clean", losses.clean_correct),
        _share("choice_accuracy_spliced", losses.spliced_correct),
        _paired_drop("choice_accuracy_drop", losses.clean_correct, losses.spliced_correct),
        Estimate(measure="chance", value=chance, low=chance, high=chance, unit="fraction", n=n),
        _mean("answer_logprob_drop", check, clean - spliced, np.ones(n, dtype=np.int64)),
    )


def curve(losses: TextLosses) -> tuple[CurvePoint, ...]:
    """The increase at every position that at least two sequences have, with pointwise intervals."""
    sums = losses.by_position
    points = []
    for position in np.flatnonzero(sums.n_tokens >= 2):
        n = int(sums.n_tokens[position])
        mean = float(sums.ce_increase_nats[position]) / n
        variance = max(0.0, float(sums.ce_increase_nats_squared[position]) - n * mean * mean) / (n - 1)
        margin = _t(n) * math.sqrt(variance / n)
        if math.isfinite(mean) and math.isfinite(margin):
            points.append(CurvePoint(position=int(position), value=mean, low=mean - margin, high=mean + margin, n=n))
    return tuple(points)


def _increase(span: Span) -> Floats:
    return span.ce_spliced_nats - span.ce_clean_nats


def _t(n: int) -> float:
    """Student's t quantile for a two-sided interval from *n* units."""
    return float(stdtrit(n - 1, 1 - ALPHA / 2))


def _influence(sums: Floats, n_tokens: Counts) -> Floats:
    """
    Each sequence's pull on the ratio sum(sums) / sum(n_tokens): what the linearised ratio averages.

    Source: Cochran, Sampling Techniques, 3rd ed., equation 6.10 (the residuals y_i - R x_i).
    """
    ratio = sums.sum() / n_tokens.sum()
    return np.asarray((sums - ratio * n_tokens) / n_tokens.mean(), dtype=np.float64)


def _estimate(measure: str, check: checks.Check, value: float, influence: Floats) -> Reading:
    n = len(influence)
    if n < 2:
        return NotMeasured(measure=measure, reason=f"{n} sequence: an interval needs two")
    margin = _t(n) * math.sqrt(float(influence @ influence) / (n - 1) / n)
    unit = check.unit_of(measure)
    assert unit is not None, measure
    return Estimate(measure=measure, value=value, low=value - margin, high=value + margin, unit=unit, n=n)


def _mean(measure: str, check: checks.Check, sums: Floats, n_tokens: Counts) -> Reading:
    """Mean per token of what *sums* holds per sequence; sequences without tokens do not count."""
    has = n_tokens > 0
    if not has.any():
        return NotMeasured(measure=measure, reason="no token was scored")
    sums, n_tokens = sums[has], n_tokens[has]
    return _estimate(measure, check, float(sums.sum() / n_tokens.sum()), _influence(sums, n_tokens))


def _ratio(measure: str, check: checks.Check, numerator: Floats, denominator: Floats) -> Reading:
    """Ratio of means, linearised. The caller has seen to it that the denominator is positive."""
    value = float(numerator.sum() / denominator.sum())
    return _estimate(measure, check, value, (numerator - value * denominator) / denominator.mean())


def _recovered(regained: Floats, lost: Floats, n_tokens: Counts) -> Reading:
    loss = _mean("ce_recovered", checks.CE_LOSS, lost, n_tokens)
    if not isinstance(loss, Estimate):
        return loss
    if loss.low <= 0:
        return NotMeasured(measure="ce_recovered", reason="the ablation costs nothing measurable to compare with")
    has = n_tokens > 0
    return _ratio("ce_recovered", checks.CE_LOSS, regained[has], lost[has])


def _share_bounds(n_true: int, n: int, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a share, two-sided at *alpha*."""
    low = 0.0 if n_true == 0 else 1 - float(bdtri(n - n_true, n, alpha / 2))
    high = 1.0 if n_true == n else float(bdtri(n_true, n, alpha / 2))
    return low, high


def _share(measure: str, flags: Flags) -> Reading:
    n, n_true = len(flags), int(flags.sum())
    if n == 0:
        return NotMeasured(measure=measure, reason="no item")
    low, high = _share_bounds(n_true, n, ALPHA)
    return Estimate(measure=measure, value=n_true / n, low=low, high=high, unit="fraction", n=n)


def _paired_drop(measure: str, clean: Flags, spliced: Flags) -> Reading:
    """
    P(clean right) - P(spliced right) on the same items.

    The difference of two discordant shares, each with its exact interval at half the error: never a plug-in variance,
    which is zero when no answer flips and so would promise certainty from silence.
    """
    n = len(clean)
    if n == 0:
        return NotMeasured(measure=measure, reason="no item")
    lost, won = int((clean & ~spliced).sum()), int((~clean & spliced).sum())
    lost_low, lost_high = _share_bounds(lost, n, ALPHA / 2)
    won_low, won_high = _share_bounds(won, n, ALPHA / 2)
    return Estimate(
        measure=measure,
        value=(lost - won) / n,
        low=lost_low - won_high,
        high=lost_high - won_low,
        unit="fraction",
        n=n,
    )


def _exp_of_mean(measure: str, nats: Floats) -> Reading:
    n = len(nats)
    if n < 2:
        return NotMeasured(measure=measure, reason=f"{n} item: an interval needs two")
    mean = math.fsum(nats) / n
    margin = _t(n) * float(nats.std(ddof=1)) / math.sqrt(n)
    if mean + margin > 700:  # exp overflows float64: such a perplexity is no number anyone compares
        return NotMeasured(measure=measure, reason=f"too large to print: exp({mean:.0f})")
    unit = checks.LAMBADA.unit_of(measure)
    assert unit is not None, measure
    low, value, high = (math.exp(x) for x in (mean - margin, mean, mean + margin))
    return Estimate(measure=measure, value=value, low=low, high=high, unit=unit, n=n)


def _all_not_measured(check: checks.Check, reason: str) -> tuple[Reading, ...]:
    return tuple(NotMeasured(measure=m.name, reason=reason) for m in check.measures)


def _first_bad_row(values: Floats) -> int | None:
    bad = np.flatnonzero(~np.isfinite(values))
    return int(bad[0]) if len(bad) else None


def _first_not_finite(losses: TextLosses) -> str | None:
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
