"""
Losses: what measuring returns and judging reads. One row per sequence or item, with sums and counts, never means.

Rows are in seeded order (see `corpora.sequences.seeded_order`), whatever order they were measured in. Numbers that are
not finite are kept: `corpus_readings` refuses them by name and row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

_ROUNDING = 1e-12
"""spread of a reconstruction, as a share of that of the activation, up to which it is constant."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """Sums over the scored positions of each sequence within one span of positions. All (n_sequences,)."""

    n_tokens: Counts
    """number of scored predictions."""
    ce_clean_nats: Floats
    ce_spliced_nats: Floats
    kl_nats: Floats
    """KL(clean || spliced)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstructions:
    """Sums over the replaced positions of each sequence within the training context."""

    n_tokens: Counts  # (n_sequences,)
    n_active: Counts  # (n_sequences,) active latents
    max_active: Counts  # (n_sequences,) most active latents on one token
    error_squared: Floats  # (n_sequences,) |x - x^|^2, x the activation to reconstruct and x^ the reconstruction
    norm_squared: Floats  # (n_sequences,) |x|^2
    target_sum: Floats  # (n_sequences, d_out) sum of x


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """
    First and second moments of an activation y and its reconstruction, as sums over positions of each sequence.

    Attention sinks, positions whose |y| is above ten times the median of their sequence, are left out.
    """

    n_tokens: Counts  # (n_sequences,)
    n_left_out: Counts  # (n_sequences,) attention sinks
    target_sum: Floats  # (n_sequences, d_out) sum of y
    output_sum: Floats  # (n_sequences, d_out) sum of the reconstruction
    target_squared: Floats  # (n_sequences,) |y|^2
    output_squared: Floats  # (n_sequences,) |reconstruction|^2
    product: Floats  # (n_sequences,) y times reconstruction

    @property
    def n(self) -> int:
        """Number of positions of all sequences."""
        return int(self.n_tokens.sum())

    @property
    def mean_error(self) -> Floats:
        """Mean of y minus reconstruction, (d_out,)."""
        return np.asarray((self.target_sum - self.output_sum).sum(0) / max(1, self.n))

    @property
    def spread(self) -> float:
        """Mean |y - mean of y|^2."""
        return _central(self.target_squared, self.target_sum, self.target_sum, self.n)

    @property
    def output_spread(self) -> float:
        """As `spread`, of the reconstruction."""
        return _central(self.output_squared, self.output_sum, self.output_sum, self.n)

    @property
    def covariance(self) -> float:
        """Mean product of y and reconstruction, each less its mean."""
        return _central(self.product, self.target_sum, self.output_sum, self.n)

    @property
    def explained_variance(self) -> float:
        """1 - mean |y - reconstruction|^2 over `spread`; NaN if y does not vary."""
        error = float((self.target_squared - 2 * self.product + self.output_squared).sum()) / max(1, self.n)
        return 1 - _quotient(error, self.spread)

    @property
    def best_explained_variance(self) -> float:
        """Explained variance after the best scalar factor and the best constant; 0 for a constant reconstruction."""
        if self.output_spread <= _ROUNDING * self.spread:
            return 0.0 if self.spread > 0 else float("nan")
        return _quotient(self.covariance**2, self.spread * self.output_spread)

    @property
    def relative_bias(self) -> float:
        """Norm of `mean_error` over the root of `spread`."""
        return _quotient(float(np.linalg.norm(self.mean_error)), float(np.sqrt(self.spread)))

    @property
    def length_ratio(self) -> float:
        """
        Factor by which the reconstruction varies too much; 1 if no scalar factor brings it nearer to y.

        Source: the relative reconstruction bias of Rajamanoharan et al. 2024, here about the means.
        """
        is_constant = self.output_spread <= _ROUNDING * self.spread
        return float("nan") if is_constant else _quotient(self.output_spread, self.covariance)


def _central(products: Floats, one_sum: Floats, other_sum: Floats, n: int) -> float:
    """Mean of products about the means, from the sums over sequences."""
    n = max(1, n)
    return float(products.sum() / n - (one_sum.sum(0) / n) @ (other_sum.sum(0) / n))


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator != 0 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RatioSums:
    """
    Moments for a ratio sum(numerator) / sum(denominator) and its interval, over sequences. All (n_positions,).

    For a plain mean every denominator is 1.
    """

    n: Counts
    """number of sequences that have the position."""
    numerator: Floats
    denominator: Floats
    numerator_squared: Floats
    numerator_times_denominator: Floats
    denominator_squared: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ByPosition:
    """Measures of one SAE at every position of the context, within and beyond the training context."""

    ce_increase: RatioSums
    """nats, at scored positions."""
    kl: RatioSums
    """nats, at scored positions."""
    running_increase: RatioSums
    """nats: sum of a sequence's increases up to this position, over their number."""
    l0: RatioSums
    """active latents, at replaced positions."""
    unexplained: RatioSums
    """|x - x^|^2 over |x - mean of x at this position|^2, at replaced positions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextLosses:
    """Losses of one SAE on the text corpus."""

    documents: Counts
    """(n_sequences,) index of each sequence's document in its file."""
    n_training_context_tokens: int | None
    """None: unknown; then *within* covers all positions and *beyond* none."""
    n_context_tokens: int
    increase_nats: NDArray[np.float32]
    """(n_sequences, n_positions) CE increase by the position that predicts; NaN where nothing is scored."""
    within: Span
    """positions within the training context."""
    beyond: Span
    """positions beyond the training context."""
    ce_ablated_nats: Floats | None
    """(n_sequences,) within the training context, with zeros in place of the activation; None: not measured."""
    reconstructions: Reconstructions
    ever_active: Flags | None
    """(d_sae,) whether a latent was ever active within the training context; None: the SAE has no latents."""
    by_position: ByPosition

    @property
    def n_within_tokens(self) -> int:
        """Number of positions within the training context."""
        return min(self.n_context_tokens, self.n_training_context_tokens or self.n_context_tokens)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemLosses:
    """Losses of one SAE on items with one right continuation (Lambada). All (n_items,)."""

    items: Counts
    """index of each item in its file."""
    clean_correct: Flags
    spliced_correct: Flags
    clean_logprob_nats: Floats
    """log-probability of the whole target, summed over its tokens."""
    spliced_logprob_nats: Floats
    n_target_tokens: Counts
    n_context_tokens: Counts
    """number of tokens before the last token of the target, BOS included."""
    clean_rank: Counts
    """rank of the target, see `answer_readings.lambada`; 1 is the most probable."""
    spliced_rank: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemText:
    """Text of one item of an `ItemLosses`, for reports."""

    item: int
    """index of the item in its file."""
    passage_end: str
    """last characters before the answer."""
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChoiceLosses:
    """Losses of one SAE on queries with one right option (Children's Book Test). All (n_queries,)."""

    queries: Counts
    """index of each query in its file."""
    n_options: Counts
    clean_correct: Flags
    """whether the right option is more probable than every other one."""
    spliced_correct: Flags
    clean_chosen: Counts
    """index of the chosen option: 0, the right one, if it is correct, else the most probable other one."""
    spliced_chosen: Counts
    clean_logprob_nats: Floats
    """log-probability of the right option, normalised over the options."""
    spliced_logprob_nats: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceText:
    """Text of one query of a `ChoiceLosses`, for reports."""

    query: int
    """index of the query in its file."""
    passage_end: str
    """last characters of the passage."""
    question: str
    """contains XXXXX in place of the missing word."""
    options: tuple[str, ...]
    """the right one first, in the order of `ChoiceLosses`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaterSae:
    """
    Effect of one SAE's splice on a later SAE: sums over the replaced positions within both training contexts.

    x is the clean activation at the later SAE's hook, x' the activation after the splice. Arrays are (n_sequences,).
    """

    sae_id: str
    hook: str
    n_tokens: Counts
    error_squared: Floats  # |x' - x|^2
    norm_squared: Floats  # |x|^2
    residual_norm_squared: Floats  # |r|^2 of the clean residual stream at the hook, or before the hook's block
    cosine: Floats  # cosine similarity of x and x'
    clean: Reconstructions  # the later SAE on x
    disturbed: Reconstructions  # the later SAE on x'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PropagationLosses:
    """Effect of one SAE's splice on the later SAEs of its release."""

    own: Reconstructions
    """the spliced SAE, over all replaced positions within its training context."""
    later: tuple[LaterSae, ...]
    """in order of depth."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeighbourLosses:
    """One SAE at its own hooks, at those of the neighbouring blocks and at other places, within its context."""

    own: Span
    hooks: tuple[str, ...]
    """hooks of the neighbouring blocks."""
    spans: tuple[Span, ...]
    """with the splice at each of *hooks*."""
    places: tuple[str, ...] = ()
    """other hooks of its block."""
    fits: tuple[Reconstructions, ...] = ()
    """of its own hook and of each of *places*, without attention sinks; empty without places."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomErrorLosses:
    """One SAE's error compared with random errors of the same size at every token. All (n_sequences,)."""

    n_tokens: Counts
    kl_spliced_nats: Floats
    kl_isotropic_nats: Floats
    """with uniformly distributed directions."""
    kl_covariance_nats: Floats
    """with directions drawn with the covariance of the activations."""
    error_squared: Floats
    norm_squared: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackLosses:
    """Losses with the first SAE of a stack spliced, with the first two, and so on up to all of them."""

    sae_ids: tuple[str, ...]
    steps: tuple[Span, ...]
    """by number of SAEs, within the shortest of their training contexts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackItemLosses:
    """As `StackLosses`, on Lambada."""

    sae_ids: tuple[str, ...]
    steps: tuple[ItemLosses, ...]
