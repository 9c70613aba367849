"""Which option a model chooses, clean and spliced, from the log-probability of every filled query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import ChoiceLosses, Counts, Floats, ItemLosses
from sae_checks.measuring.corpus_pass import Rounds, measure_items
from sae_checks.measuring.scoring import Fault, Progress
from sae_checks.model.interface import LanguageModel
from sae_checks.saes.sae import Reconstructs


def measure_choices(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    queries: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    rounds: Rounds[ChoiceLosses] | None = None,
) -> tuple[ChoiceLosses | Fault, ...]:
    """
    What each of *saes* does to the choices of *queries* (see `corpora.cbt`), in the order of *saes*.

    Each option is a sequence of its own, so an option's log-probability is the sum over what is scored of its sequence;
    *rounds* end between queries.
    """
    of_options: Rounds[ItemLosses] | None = None
    if rounds is not None:
        goes_on = rounds.goes_on
        of_options = Rounds(ends=rounds.ends, goes_on=lambda i, options: goes_on(i, _chosen(options)))
    found = measure_items(model, saes, queries, n_batch_tokens=n_batch_tokens, progress=progress, rounds=of_options)
    return tuple(each if isinstance(each, Fault) else _chosen(each) for each in found)


def _chosen(options: ItemLosses) -> ChoiceLosses:
    # A query is a run of sequences of one row: `items` has one entry per sequence, in the order of the corpus.
    starts = np.flatnonzero(np.r_[True, options.items[1:] != options.items[:-1]])  # (n_queries,)
    n_options = np.diff(np.r_[starts, len(options.items)])
    clean_chosen, clean_nats = _answers(options.clean_logprob_nats, starts, n_options)
    spliced_chosen, spliced_nats = _answers(options.spliced_logprob_nats, starts, n_options)
    return ChoiceLosses(
        queries=options.items[starts],
        n_options=n_options,
        clean_correct=clean_chosen == 0,
        spliced_correct=spliced_chosen == 0,
        clean_chosen=clean_chosen,
        spliced_chosen=spliced_chosen,
        clean_logprob_nats=clean_nats,
        spliced_logprob_nats=spliced_nats,
    )


def _answers(logprob_nats: Floats, starts: Counts, n_options: Counts) -> tuple[Counts, Floats]:
    """Each query's choice, 0 if its first option beats every other one, and that option's log-probability among all."""
    others = logprob_nats.copy()
    others[starts] = -np.inf
    answer = logprob_nats[starts]
    # a tie is wrong: options that the tokenizer does not know are all <unk>, and nothing was chosen between them
    best = np.maximum.reduceat(others, starts)
    is_best = np.flatnonzero(~(others < np.repeat(best, n_options)))  # what is not finite is somewhere, too
    first = is_best[np.searchsorted(is_best, starts + 1)]  # (n_queries,) never the right one
    chosen = np.where(answer > best, 0, first - starts)
    most = np.repeat(np.maximum.reduceat(logprob_nats, starts), n_options)
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and `corpus_readings` refuses it by name
        total = np.log(np.add.reduceat(np.exp(logprob_nats - most), starts)) + most[starts]
        return chosen, answer - total
