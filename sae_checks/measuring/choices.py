"""Which option a model chooses, clean and spliced, from the log-probability of every filled query."""

from __future__ import annotations

import numpy as np

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import ChoiceLosses, Counts, Floats, ItemLosses
from sae_checks.measuring.scoring import Batch, Fault, Scores
from sae_checks.measuring.sequence_sums import AnswerSums, ItemSums


class ChoiceSums(AnswerSums[ChoiceLosses]):
    """
    Choices of one SAE over the batches seen (see `corpora.cbt`).

    Each option is a sequence of its own: an option's log-probability is the sum over what is scored of its sequence.
    """

    def __init__(self, queries: Sequences) -> None:
        super().__init__(len(queries.rows))
        self._options = ItemSums(queries)

    def add_scores(self, batch: Batch, clean: Scores, spliced: Scores) -> None:
        """Add the scores of one batch of options."""
        self._options.add_scores(batch, clean, spliced)

    def losses(self) -> ChoiceLosses | Fault:
        """Of the first *n_measured* options, which are those of whole queries."""
        self._options.n_measured = self.n_measured
        if self.fault is not None:
            return Fault(problem=self.fault)
        found = self._options.losses()
        return found if isinstance(found, Fault) else _chosen(found)


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
