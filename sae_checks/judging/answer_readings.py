"""Losses of Lambada and the Children's Book Test -> readings: which answers are right, clean and spliced."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sae_checks import checks
from sae_checks.judging.estimates import (
    NotMeasured,
    Reading,
    all_not_finite,
    all_not_measured,
    counted,
    exp_of_mean,
    first_bad_row,
    mean_fraction,
    mean_of,
    paired_drop,
    share_of,
)
from sae_checks.losses import ChoiceLosses, ItemLosses


def lambada(
    losses: ItemLosses, *, n_training_context_tokens: int | None = None, n_listed: int | None = None
) -> tuple[Reading, ...]:
    """
    Readings of `lambada`: how well the last word of each passage is predicted, clean and spliced.

    - Accuracy: the share of passages of which every token of the word is the most probable one, given the true tokens
      before it. As in lm-evaluation-harness.
    - Perplexity: exp of minus the mean over passages of the word's summed log-probability. As in lm-evaluation-harness.
    - Probability: the mean over passages of the probability of the whole word.
    - Reciprocal rank: the mean of 1 / rank. The rank of a token is 1 plus the number of more probable tokens; that of a
      word is the largest of its tokens' ranks. Except for ties, a word is right if its rank is 1.
    - Within, beyond: accuracy over passages whose word is predicted from at most, or more than, the training context.
    - Lost, won: shares of all passages.

    Args:
        losses: of the passages.
        n_training_context_tokens: None: unknown.
        n_listed: passages of the whole list, of which these are the first; None: unknown.
    """
    check = checks.LAMBADA
    clean, spliced = losses.clean_logprob_nats, losses.spliced_logprob_nats
    for name, values in (("clean log-probability", clean), ("spliced log-probability", spliced)):
        if (row := first_bad_row(values)) is not None:
            where = f"the {name} of item {losses.items[row]} is {values[row]}"
            return all_not_finite(check, where)
    return (
        share_of("accuracy_clean", losses.clean_correct, n_listed),
        share_of("accuracy_spliced", losses.spliced_correct, n_listed),
        paired_drop("accuracy_drop", losses.clean_correct, losses.spliced_correct, n_listed),
        exp_of_mean("perplexity_clean", check, -clean),
        exp_of_mean("perplexity_spliced", check, -spliced),
        exp_of_mean("perplexity_ratio", check, clean - spliced, ideal_value=0.0),
        mean_fraction("probability_clean", check, np.exp(clean)),
        mean_fraction("probability_spliced", check, np.exp(spliced)),
        mean_fraction("reciprocal_rank_clean", check, 1 / losses.clean_rank),
        mean_fraction("reciprocal_rank_spliced", check, 1 / losses.spliced_rank),
        *_by_length(losses, n_training_context_tokens, n_listed),
        share_of("answers_lost", losses.clean_correct & ~losses.spliced_correct, n_listed),
        share_of("answers_won", ~losses.clean_correct & losses.spliced_correct, n_listed),
    )


def _by_length(losses: ItemLosses, n_training: int | None, n_listed: int | None) -> Iterator[Reading]:
    """Clean accuracy and its drop, over passages within the training context and over those beyond it."""
    for side in ("within", "beyond"):
        measures = (f"accuracy_clean_{side}", f"accuracy_drop_{side}")
        if n_training is None:
            yield from (NotMeasured(measure=m, reason="the SAE's training context is unknown") for m in measures)
            continue
        chosen = (losses.n_context_tokens <= n_training) == (side == "within")
        if not chosen.any():
            reason = f"no passage is {side} the training context of {n_training} tokens"
            yield from (NotMeasured(measure=m, reason=reason) for m in measures)
            continue
        clean, spliced = losses.clean_correct[chosen], losses.spliced_correct[chosen]
        n_of_side = len(clean) if n_listed == len(chosen) else None  # WHY None: the rest of the list is unknown
        yield share_of(measures[0], clean, n_of_side)
        yield paired_drop(measures[1], clean, spliced, n_of_side)


def cbt(losses: ChoiceLosses, *, n_listed: int | None = None) -> tuple[Reading, ...]:
    """
    Readings of `cbt`: the share of queries with the right choice, clean and spliced, on the same queries.

    `chance` is the share that guessing gets right. `answer_logprob_drop` is the loss of log-probability of the right
    option among the options; it changes before choices do.

    Args:
        losses: of the queries.
        n_listed: queries of the whole list, of which these are the first; None: unknown.
    """
    check = checks.CBT
    clean, spliced = losses.clean_logprob_nats, losses.spliced_logprob_nats
    for name, values in (("clean log-probability", clean), ("spliced log-probability", spliced)):
        if (row := first_bad_row(values)) is not None:
            where = f"the {name} of query {losses.queries[row]} is {values[row]}"
            return all_not_finite(check, where)
    n = len(losses.queries)
    if n == 0:
        return all_not_measured(check, "no query")
    chance = math.fsum(1 / losses.n_options) / n
    return (
        share_of("choice_accuracy_clean", losses.clean_correct, n_listed),
        share_of("choice_accuracy_spliced", losses.spliced_correct, n_listed),
        paired_drop("choice_accuracy_drop", losses.clean_correct, losses.spliced_correct, n_listed),
        counted("chance", check, chance, n),
        mean_of("answer_logprob_drop", check, clean - spliced, np.ones(n, dtype=np.int64), ideal_value=0.0),
    )
