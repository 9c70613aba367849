"""The sequences that a splice costs most, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_checks.fields import Count

N_TOKENS_MOST = 200
"""Of each sequence the run of so many tokens is kept that costs most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstSequence:
    """One sequence that the splice costs much, and its costliest run of tokens."""

    document_index: Count
    """index of its document in the corpus."""
    mean_increase_nats_per_token: float
    """spliced minus clean cross-entropy, mean over all scored tokens of the sequence."""
    first_position: Count
    """position of the first of these tokens in the sequence."""
    tokens: tuple[str, ...]
    """at most 200, as text."""
    increase_nats: tuple[float | None, ...]
    """how much more predicting each of these tokens costs with the splice; None: it was not scored."""


def worst_sequences(
    increase_nats: npt.NDArray[np.floating],
    documents: Sequence[int] | npt.NDArray[np.integer],
    tokens_of: Callable[[int], Sequence[str]],
    n_most: int = 5,
) -> tuple[WorstSequence, ...]:
    """
    The *n_most* sequences with the highest mean increase, the worst first; of equal ones the first in the plan.

    Sequences without scored tokens or with an infinite increase are left out. Numbers are rounded to four significant
    digits.

    Args:
        increase_nats: (n_sequences, n_positions); at [i, p] the increase of predicting token p + 1 of sequence i from
            the tokens up to p, NaN where that was not scored.
        documents: (n_sequences,) indices in the corpus.
        tokens_of: gives the tokens of sequence i as text; it is called for the worst sequences only.
        n_most: sequences at most.

    Raises:
        ValueError: a scored token is not among those of `tokens_of`.
    """
    scored = ~np.isnan(increase_nats)
    n_scored = scored.sum(axis=1)  # (n_sequences,)
    sums = np.where(np.isfinite(increase_nats), increase_nats, 0).sum(axis=1, dtype=np.float64)
    usable = np.flatnonzero((n_scored > 0) & ~np.isinf(increase_nats).any(axis=1))
    means = sums[usable] / n_scored[usable]
    in_order = usable[np.argsort(-means, kind="stable")][:n_most]
    return tuple(
        _worst_sequence(increase_nats[i], int(documents[i]), float(sums[i] / n_scored[i]), tokens_of(int(i)))
        for i in in_order
    )


def _worst_sequence(
    increase_nats: npt.NDArray[np.floating], document: int, mean_increase: float, tokens: Sequence[str]
) -> WorstSequence:
    """The costliest run of at most N_TOKENS_MOST tokens of one sequence."""
    last = int(np.flatnonzero(~np.isnan(increase_nats))[-1])
    if last + 1 >= len(tokens):
        raise ValueError(f"token {last + 1} was predicted, but the sequence has {len(tokens)} tokens")
    of_token = np.full(len(tokens), np.nan)  # WHY the first stays NaN: it is never predicted
    n_predicted = min(len(increase_nats), len(tokens) - 1)
    of_token[1 : n_predicted + 1] = increase_nats[:n_predicted]
    start = _costliest_run(of_token)
    shown = of_token[start : start + N_TOKENS_MOST]
    return WorstSequence(
        document_index=document,
        mean_increase_nats_per_token=_rounded(mean_increase),
        first_position=start,
        tokens=tuple(tokens[start : start + N_TOKENS_MOST]),
        increase_nats=tuple(None if np.isnan(x) else _rounded(float(x)) for x in shown),
    )


def _costliest_run(of_token: npt.NDArray[np.float64]) -> int:
    """Start of the run of N_TOKENS_MOST tokens with the largest sum of increases; the earliest of equal ones."""
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(of_token, nan=0.0))])
    n = min(N_TOKENS_MOST, len(of_token))
    return int(np.argmax(sums[n:] - sums[: len(sums) - n]))


def _rounded(x: float) -> float:
    return float(f"{x:.4g}")
