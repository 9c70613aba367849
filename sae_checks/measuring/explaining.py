"""The explanation of one SAE's loss, by its costliest predictions on the text corpus."""

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
"""predictions to explain in each sequence."""
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
    Explain the costliest predictions of *sae* in the worst documents (see `studies.explain`).

    Args:
        model: the model in which the SAE was measured.
        sae: the SAE with its weights.
        sequences: the text corpus.
        losses: the SAE's losses on *sequences*.
        documents: indices of documents, the worst first; the first few are explained.
        n_batch_tokens: most tokens per forward pass.
        progress: called with (tokens run, all tokens); leaving out latents is not counted in the latter.
    """
    within = losses.increase_nats[:, : losses.n_training_context_tokens]
    chosen = [_costliest(within, losses, document) for document in documents[:N_SEQUENCES]]
    chosen = [(row, predicted) for row, predicted in chosen if predicted]
    if not chosen:
        return Explanation(why_none=NOTHING_COSTS if documents else NOT_FINITE)
    n_done = 0
    n_all = sum(max(predicted) * int(sequences.replaced[row, : max(predicted)].sum()) for row, predicted in chosen)

    def add_progress(n: int) -> None:
        nonlocal n_done
        n_done += n
        progress(min(n_done, n_all - 1), n_all)

    tokens: list[CostlyToken] = []
    progress(0, n_all)
    try:
        for row, predicted in chosen:
            n = max(predicted) + 1
            sequence = OneSequence(
                document=int(losses.documents[row]),
                tokens=torch.from_numpy(sequences.tokens[row : row + 1, :n]).to(model.device),
                replaced=torch.from_numpy(sequences.replaced[row : row + 1, :n]).to(model.device),
                texts=token_texts(sequences, row, model.tokenizer)[:n],
                predicted=predicted,
            )
            tokens += explain(
                model,
                sae,
                sequence,
                n_batch_tokens=n_batch_tokens,
                reads=lambda first, second: text_after(model.tokenizer, first, second),
                progress=add_progress,
            )
    except (errors.SaeChecksError, RuntimeError) as problem:  # torch's errors, out of memory included
        return Explanation(why_none=f"it could not be explained: {problem}")  # WHY no error: verdicts do not need it
    finally:
        progress(n_all, n_all)
    return Explanation(tokens=tuple(tokens), why_none=None if tokens else NOT_FINITE)


def _costliest(within: np.ndarray, losses: TextLosses, document: int) -> tuple[int, tuple[int, ...]]:
    """The row of *document* in *losses*, and the positions of its costliest tokens that cost at least LEAST_NATS."""
    row = int(np.flatnonzero(losses.documents == document)[0])
    increase = np.where(np.isfinite(within[row]), within[row], -np.inf)
    largest = np.argsort(-increase, kind="stable")[:N_PREDICTIONS]
    return row, tuple(int(p) + 1 for p in largest if increase[p] >= LEAST_NATS)
