"""The warning that an SAE's L0 is not the one that its release records."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.judging.estimates import Estimate
from sae_checks.judging.verdict import L0_BAND

BAND = (0.8, 1.25)
"""Range of the measured over the recorded L0 without a warning. WHY: another corpus changes L0 by a tenth, so twice as
much has another reason. What is outside of L0_BAND is no warning: the verdict tells it."""


def ratio_beyond_band(estimates: Sequence[Estimate]) -> float | None:
    """The measured over the recorded L0, if its whole interval is outside BAND; None: no warning."""
    found = next((e for e in estimates if e.measure == "l0_ratio"), None)
    if found is None or (found.low <= BAND[1] and found.high >= BAND[0]):
        return None
    return found.value if L0_BAND[0] <= found.value <= L0_BAND[1] else None


def note(estimates: Sequence[Estimate]) -> str:
    """What is added to the reason of the result; empty: nothing."""
    ratio = ratio_beyond_band(estimates)
    return "" if ratio is None else f"; L0 is {ratio:.3g} times the recorded one"
