"""
Where the loss of one SAE comes from: which positions and latents, when undone, recover how much of it.

Every number comes from an intervention, one change at a time while all else stays spliced.
"""

from __future__ import annotations

from dataclasses import dataclass

from sae_checks.fields import Count, Share

LEAST_NATS = 0.01
"""A smaller effect is not reported: neither a costly prediction nor a recovered one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblatedLatent:
    """One latent, set to zero at one position."""

    latent_index: Count
    """row of W_dec."""
    activation: float
    norm_share: float
    """norm of what the latent writes over the norm of the whole reconstruction there; above 1 where latents cancel."""
    recovered_nats: float
    """how much less the prediction costs without the latent; below 0: it costs more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredPosition:
    """One position, with its clean activation back in place."""

    position: Count
    """of the token in its sequence."""
    token: str
    recovered_nats: float
    """how much less the prediction costs then."""
    norm_ratio: float | None
    """norm of the reconstruction there over the norm of the activation; None: that is zero."""
    cosine: float | None
    """between the reconstruction and the activation; None: the norm of one of them is zero."""
    n_active_latents: Count | None = None
    """latents that are active there; None: no latent was ablated here."""
    n_ablated_latents: Count = 0
    """of these, how many were ablated one at a time: all, or those that write most."""
    all_ablated_recovered_nats: float | None = None
    """how much less the prediction costs with all active latents at zero at once; None: not tried, or not finite."""
    ablated_latents: tuple[AblatedLatent, ...] = ()
    """the latents that recover most, best first."""
    why_no_latents: str | None = None
    """why the latents of this SAE cannot be ablated one at a time; None: they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostlyToken:
    """One token whose prediction the splice made much worse."""

    document_index: Count
    """index of the document in the corpus."""
    position: Count
    """of the token in its sequence; it is predicted from the position before."""
    preceding_text: str
    """the last tokens before it."""
    token: str
    probability_clean: Share
    probability_spliced: Share
    increase_nats: float
    """spliced minus clean cross-entropy of the token."""
    spliced_top_token: str | None
    """most probable token of the spliced model; None: still this token."""
    spliced_top_probability: Share | None
    """probability of that token; None: still this token."""
    n_restored_positions: Count
    """positions that were restored, one at a time."""
    restored_positions: tuple[RestoredPosition, ...]
    """the positions that recover most, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where one SAE's loss comes from."""

    tokens: tuple[CostlyToken, ...] = ()
    """by sequence, the costliest first."""
    why_none: str | None = None
    """why there is no token; None: there are tokens."""
