"""
Why a splice costs what it costs, where it costs most: what was changed back, and what that recovered.

Found by intervention, one thing at a time: nothing here is guessed from how large something is. Both wings read this.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LEAST_NATS = 0.01
"""Less than this is no effect worth a name: neither a prediction that costs more, nor one that is recovered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOut:
    """One latent, set to zero at one position while all else stays spliced."""

    latent: int
    """its index, the row of W_dec."""
    activation: float
    norm_share: float
    """length of what it writes over that of the whole reconstruction there; above 1 where latents cancel."""
    recovered_nats: float
    """what the prediction costs less without it; below zero: it helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One position, with the clean activation back in place there alone."""

    position: int
    """of the token in its sequence."""
    token: str
    recovered_nats: float
    """what the prediction costs less then."""
    length_ratio: float | None
    """of the reconstruction there to what it stands for; None: that has no length."""
    cosine: float | None
    """between the two; None: one of them has no length."""
    n_active: int | None = None
    """latents that are active there; None: no latent was taken out here."""
    n_taken_out: int = 0
    """of these, one at a time; those that write most, where there are more than were tried."""
    all_out_nats: float | None = None
    """what the prediction costs less with all active latents set to zero there at once."""
    latents: tuple[TakenOut, ...] = ()
    """those that recover most, the best first."""
    why_none: str | None = None
    """why no single latent can be taken out of this SAE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostlyToken:
    """One token whose prediction the splice made much worse."""

    document: int
    """index in the corpus."""
    position: int
    """of the token in its sequence; it is predicted from the one before."""
    before: str
    """the last tokens before it."""
    token: str
    probability_clean: float
    probability_spliced: float
    increase_nats: float
    instead: str | None
    """what the spliced model finds most probable; None: still the token."""
    probability_instead: float | None
    n_positions: int
    """that were put back, each alone."""
    sources: tuple[Source, ...]
    """the positions that recover most, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where one SAE's loss comes from."""

    tokens: tuple[CostlyToken, ...] = ()
    """by sequence, the worst first."""
    why_none: str | None = None
    """why there are none."""


def to_json(explanation: Explanation) -> dict[str, Any]:  # JSON's own border
    return asdict(explanation)


def from_json(row: dict[str, Any]) -> Explanation:
    """What `to_json` made, by its schema."""
    return Explanation(tokens=tuple(map(_token, row["tokens"])), why_none=row["why_none"])


def _token(row: dict[str, Any]) -> CostlyToken:
    return CostlyToken(**{**row, "sources": tuple(map(_source, row["sources"]))})


def _source(row: dict[str, Any]) -> Source:
    return Source(**{**row, "latents": tuple(TakenOut(**latent) for latent in row["latents"])})
