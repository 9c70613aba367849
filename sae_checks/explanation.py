"""
Describes where the loss of one SAE comes from: how much single positions and latents recover of it.

Every number comes from an intervention: one position or latent is changed while everything else stays spliced.
"""

from __future__ import annotations

from dataclasses import dataclass

from sae_checks.fields import Count, Share

LEAST_NATS = 0.01
"""least increase of a prediction, and least recovery of a position or latent, that is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblatedLatent:
    """The effect of setting one latent to zero at one position."""

    latent_index: Count
    """row of W_dec."""
    activation: float
    norm_share: float
    """norm of the latent's output over the norm of the reconstruction there; above 1 if latents cancel."""
    recovered_nats: float
    """decrease in the cross-entropy of the prediction without the latent; negative: an increase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredPosition:
    """The effect of restoring the clean activation at one position."""

    position: Count
    """index of the token in its sequence."""
    token: str
    recovered_nats: float
    """decrease in the cross-entropy of the prediction; negative: an increase."""
    norm_ratio: float | None
    """norm of the reconstruction there over the norm of the activation; None: the activation is zero."""
    cosine: float | None
    """cosine of reconstruction and activation; None: one of them is zero."""
    n_active_latents: Count | None = None
    """number of latents that are active there; None: no latent was ablated."""
    n_ablated_latents: Count = 0
    """number of active latents that were ablated one at a time: all, or those with the largest output."""
    all_ablated_recovered_nats: float | None = None
    """decrease in cross-entropy with all active latents at zero at once; None: not tried, or not finite."""
    ablated_latents: tuple[AblatedLatent, ...] = ()
    """the latents that recover most, best first."""
    why_no_latents: str | None = None
    """why the latents of this SAE cannot be ablated one at a time; None: they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostlyToken:
    """One token whose prediction is much worse with the splice."""

    document_index: Count
    """index of the document in the corpus."""
    position: Count
    """index of the token in its sequence; it is predicted from the position before."""
    preceding_text: str
    """the last tokens before it, as text."""
    token: str
    probability_clean: Share
    probability_spliced: Share
    increase_nats: float
    """spliced minus clean cross-entropy of the token."""
    spliced_top_token: str | None
    """most probable token of the spliced model; None: it is this token."""
    spliced_top_probability: Share | None
    """its probability; None: it is this token."""
    n_restored_positions: Count
    """number of positions that were restored, one at a time."""
    restored_positions: tuple[RestoredPosition, ...]
    """the positions that recover most, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where the loss of one SAE comes from: its costliest predictions."""

    tokens: tuple[CostlyToken, ...] = ()
    """in order of sequence, the costliest of a sequence first."""
    why_none: str | None = None
    """why there is no token; None: there are tokens."""
