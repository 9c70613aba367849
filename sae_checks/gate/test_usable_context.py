"""
Averaged over contexts as long as its own, an SAE must cost no more than it may.

How much longer they may get before it does is the number that is reported.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("usable_context")
def test_usable_context(sae_judgement: Judgement) -> None:
    """Averaged over contexts as long as its own, an SAE must cost no more than it may."""
    sae_judgement.enforce()
