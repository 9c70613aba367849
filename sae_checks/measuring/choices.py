"""The options that the clean and the spliced model choose, by the log-probability of each filled query."""

from __future__ import annotations

import numpy as np

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import ChoiceLosses, Counts, Floats, ItemLosses
from sae_checks.measuring.scoring import Batch, Fault, Scores
from sae_checks.measuring.sequence_sums import AnswerSums, ItemSums


class ChoiceSums(AnswerSums[ChoiceLosses]):
    """
    Accumulates the `ChoiceLosses` of one SAE (see `corpora.cbt`).

    Each option is a sequence of its own; its log-probability is the sum over the scored tokens of that sequence.
    """

    def __init__(self, queries: Sequences) -> None:
        super().__init__(len(queries.rows))
        self._options = ItemSums(queries)

    def add_scores(self, batch: Batch, clean: Scores, spliced: Scores) -> None:
        """Add the scores of one batch of options."""
        self._options.add_scores(batch, clean, spliced)

    def losses(self) -> ChoiceLosses | Fault:
        """The losses of the first *n_measured* options, which are whole queries, or why there are none."""
        self._options.n_measured = self.n_measured
        if self.fault is not None:
            return Fault(problem=self.fault)
        options = self._options.losses()
        return options if isinstance(options, Fault) else _choices(options)


def _choices(options: ItemLosses) -> ChoiceLosses:
    """Turn losses per option into losses per query."""
    # WHY: the options of a query are a run of equal `items`
    starts = np.flatnonzero(np.r_[True, options.items[1:] != options.items[:-1]])  # (n_queries,)
    n_options = np.diff(np.r_[starts, len(options.items)])
    clean_chosen, clean_nats = _choose(options.clean_logprob_nats, starts, n_options)
    spliced_chosen, spliced_nats = _choose(options.spliced_logprob_nats, starts, n_options)
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


def _choose(logprob_nats: Floats, starts: Counts, n_options: Counts) -> tuple[Counts, Floats]:
    """
    Choose an option for each query.

    Args:
        logprob_nats: of every option of every query, (n_all_options,).
        starts: index of each query's first option, which is the right one, (n_queries,).
        n_options: of each query, (n_queries,).

    Returns:
        Index of the chosen option (n_queries,), and log-probability of the right option among its options (n_queries,).
    """
    others = logprob_nats.copy()
    others[starts] = -np.inf
    answer = logprob_nats[starts]
    # WHY a tie counts as wrong: options that the tokenizer reads as <unk> have equal probabilities
    best = np.maximum.reduceat(others, starts)
    is_best = np.flatnonzero(~(others < np.repeat(best, n_options)))  # TRAP: (others == best) is never true of NaN
    first = is_best[np.searchsorted(is_best, starts + 1)]  # (n_queries,) never the right one
    chosen = np.where(answer > best, 0, first - starts)
    largest = np.repeat(np.maximum.reduceat(logprob_nats, starts), n_options)
    with np.errstate(invalid="ignore"):  # WHY: the readings refuse numbers that are not finite
        total = np.log(np.add.reduceat(np.exp(logprob_nats - largest), starts)) + largest[starts]
        return chosen, answer - total
