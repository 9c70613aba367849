"""The explanation of one SAE, of the predictions that its pass over the text found to be the costliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Sequences, text_after, token_texts
from sae_checks.explanation import LEAST_NATS, CostlyToken, Explanation
from sae_checks.losses import TextLosses
from sae_checks.measuring.studies.explain import OneSequence, explain
from sae_checks.model.interface import LanguageModel
from sae_checks.saes.sae import Reconstructs

N_SEQUENCES = 3
N_PREDICTIONS = 2
"""of each of these."""
NOTHING_COSTS = f"no prediction of the worst sequences costs {LEAST_NATS:g} nats more with the splice in place"
NOT_FINITE = "no finite loss is left to explain"


def explanation(
    model: LanguageModel,
    sae: Reconstructs,
    sequences: Sequences,
    losses: TextLosses,
    documents: Sequence[int],
    *,
    n_batch_tokens: int,
    progress: Callable[[int, int], None],
) -> Explanation:
    """
    Why *sae* costs what it costs, in those of *documents* that stand first: see `local_studies.explain`.

    Args:
        model: that the SAE was measured in.
        sae: with its weights.
        sequences: that *losses* are of, in their order.
        losses: of the text pass.
        documents: the worst first.
        n_batch_tokens: tokens per forward pass, at most.
        progress: told (tokens run, tokens in all), those in all without what taking latents out will need.
    """
    within = losses.increase_nats[:, : losses.n_training_context_tokens]
    wanted = [_predicted(within, losses, document) for document in documents[:N_SEQUENCES]]
    wanted = [(row, predicted) for row, predicted in wanted if predicted]
    if not wanted:
        return Explanation(why_none=NOTHING_COSTS if documents else NOT_FINITE)
    n_done = 0
    # of latents it is known only when they are met
    n_all = sum(max(predicted) * int(sequences.replaced[row, : max(predicted)].sum()) for row, predicted in wanted)

    def told(n: int) -> None:
        nonlocal n_done
        n_done += n
        progress(min(n_done, n_all - 1), n_all)

    found: list[CostlyToken] = []
    progress(0, n_all)
    try:
        for row, predicted in wanted:
            n = max(predicted) + 1
            sequence = OneSequence(
                document=int(losses.documents[row]),
                tokens=torch.from_numpy(sequences.tokens[row : row + 1, :n]).to(model.device),
                replaced=torch.from_numpy(sequences.replaced[row : row + 1, :n]).to(model.device),
                texts=token_texts(sequences, row, model.tokenizer)[:n],
                predicted=predicted,
            )
            found += explain(
                model,
                sae,
                sequence,
                n_batch_tokens=n_batch_tokens,
                reads=lambda first, second: text_after(model.tokenizer, first, second),
                told=told,
            )
    except (
        errors.SaeChecksError,
        RuntimeError,
    ) as problem:  # torch's, out of memory included: the verdict stands without an explanation
        return Explanation(why_none=f"it could not be explained: {problem}")
    finally:
        progress(n_all, n_all)
    return Explanation(tokens=tuple(found), why_none=None if found else NOT_FINITE)


def _predicted(within: np.ndarray, losses: TextLosses, document: int) -> tuple[int, tuple[int, ...]]:
    """The row of *document*, and the positions of the tokens in it whose prediction costs most, as far as any does."""
    row = int(np.flatnonzero(losses.documents == document)[0])
    of_row = np.where(np.isfinite(within[row]), within[row], -np.inf)
    best = np.argsort(-of_row, kind="stable")[:N_PREDICTIONS]
    return row, tuple(int(p) + 1 for p in best if of_row[p] >= LEAST_NATS)
