"""
What was measured, one row per sequence or item: sums and counts, never a mean. The door between the wings.

The measuring wing fills these, the judging wing reads them. Rows stand in the order of the plan (the seeded order of
documents), whatever order they were measured in. A number that was not finite when measured stays as it was:
`corpus_readings` refuses it by name and row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """Sums over the scored positions of each sequence that lie in one span of positions. All (n_sequences,)."""

    n_tokens: Counts
    """predictions scored."""
    ce_clean_nats: Floats
    ce_spliced_nats: Floats
    kl_nats: Floats
    """KL(clean || spliced)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstructions:
    """Sums over the replaced positions of each sequence within the training context."""

    n_tokens: Counts  # (n_sequences,)
    n_active: Counts  # (n_sequences,) latents != 0
    n_active_most: Counts  # (n_sequences,) on any one token
    error_squared: Floats  # (n_sequences,) |x - x^|^2
    norm_squared: Floats  # (n_sequences,) |x|^2
    sum: Floats  # (n_sequences, d_out) of x, what the SAE should have given


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RatioSums:
    """
    What a ratio sum(numerator) / sum(denominator) and its interval need, over the sequences that have each position.

    All (n_positions,). For a plain mean every denominator is 1.
    """

    n: Counts
    """sequences that have the position."""
    numerator: Floats
    denominator: Floats
    numerator_squared: Floats
    numerator_times_denominator: Floats
    denominator_squared: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ByPosition:
    """One SAE at every position of the context, within and beyond the training context."""

    ce_increase: RatioSums
    """nats, where a prediction is scored."""
    kl: RatioSums
    """nats, where a prediction is scored."""
    running_increase: RatioSums
    """the increases of a sequence up to and with this position over how many there are."""
    l0: RatioSums
    """active latents, where the activation is replaced."""
    unexplained: RatioSums
    """|x - x^|^2 over |x - mean of x at this position|^2, where the activation is replaced."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextLosses:
    """One SAE on the text corpus."""

    documents: Counts
    """(n_sequences,) index of each sequence's document in its file."""
    n_training_context_tokens: int | None
    """None: unknown, and then *within* covers the whole sequence and *beyond* is empty."""
    n_context_tokens: int
    increase_nats: NDArray[np.float32]
    """(n_sequences, n_positions) by the position that predicts; NaN where nothing is scored."""
    within: Span
    beyond: Span
    ce_ablated_nats: Floats | None
    """(n_sequences,) within, zeros in place of the activation; None: that was not asked."""
    reconstructions: Reconstructions
    ever_active: Flags | None
    """(d_sae,) latents that were active at least once within the training context; None: the SAE does not tell."""
    by_position: ByPosition


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemLosses:
    """One SAE on items with one right continuation (Lambada). All (n_items,)."""

    items: Counts
    """index of each item in its file."""
    clean_correct: Flags
    spliced_correct: Flags
    clean_logprob_nats: Floats
    """of the whole target, summed over its tokens."""
    spliced_logprob_nats: Floats
    n_target_tokens: Counts
    n_context_tokens: Counts
    """that the last token of the target is predicted from, BOS included."""
    clean_rank: Counts
    """of the target, see `answer_readings.lambada`; 1 is the most probable."""
    spliced_rank: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemText:
    """What one item of an `ItemLosses` says, for those who want to see it."""

    item: int
    """its index in its file."""
    passage_end: str
    """what stands before the answer: the last characters of it."""
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChoiceLosses:
    """One SAE on queries with one right option among several (Children's Book Test). All (n_queries,)."""

    queries: Counts
    """index of each query in its file."""
    n_options: Counts
    clean_correct: Flags
    """the right option is more probable than every other one."""
    spliced_correct: Flags
    clean_chosen: Counts
    """the place of the most probable option, 0 being the right one; of a wrong answer that of the best other option."""
    spliced_chosen: Counts
    clean_logprob_nats: Floats
    """of the right option, among the options."""
    spliced_logprob_nats: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceText:
    """What one query of a `ChoiceLosses` says, for those who want to see it."""

    query: int
    """its index in its file."""
    passage_end: str
    """the last characters of the passage."""
    question: str
    """with XXXXX where an option belongs."""
    options: tuple[str, ...]
    """the right one first, in the order of `ChoiceLosses`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Disturbed:
    """What the splice of one SAE does at a later one: sums over the replaced positions within both contexts."""

    sae_id: str
    hook: str
    n_tokens: Counts  # (n_sequences,), like all that follows
    error_squared: Floats  # |x' - x|^2 at the later SAE's hook
    norm_squared: Floats  # |x|^2
    residual_norm_squared: Floats  # |r|^2 of the residual stream that the later SAE's block reads, or leaves behind
    cosine: Floats  # of x and x'
    clean: Reconstructions  # the later SAE on x
    disturbed: Reconstructions  # the later SAE on x'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PropagationLosses:
    """One SAE's splice, followed through the later SAEs of its release."""

    own: Reconstructions
    """where it is spliced, over all replaced positions within its context."""
    later: tuple[Disturbed, ...]
    """by the depth of their hooks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeighbourLosses:
    """One SAE spliced where it belongs and at the same place of the blocks beside. Within the training context."""

    own: Span
    hooks: tuple[str, ...]
    """of the neighbours, a Span for each."""
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomErrorLosses:
    """One SAE's splice against random errors of the same size at every token. All (n_sequences,)."""

    n_tokens: Counts
    kl_spliced_nats: Floats
    kl_isotropic_nats: Floats
    """directions drawn evenly."""
    kl_covariance_nats: Floats
    """directions drawn with the covariance of the activations."""
    error_squared: Floats
    norm_squared: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackLosses:
    """The SAEs of a stack spliced together: the first, the first two, ... all of them."""

    sae_ids: tuple[str, ...]
    steps: tuple[Span, ...]
    """within the shortest of their training contexts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackItemLosses:
    """Lambada with the first, the first two, ... all SAEs of a stack spliced."""

    sae_ids: tuple[str, ...]
    steps: tuple[ItemLosses, ...]
