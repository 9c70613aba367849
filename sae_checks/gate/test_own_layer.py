"""
An SAE must cost less at its own hook than in the blocks next to it.

Compares the increase in cross-entropy at its own hook with that at the same hook of the neighbouring blocks.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("own_layer")
def test_own_layer(sae_judgement: Judgement) -> None:
    """An SAE must cost less at its own hook than in the blocks next to it."""
    sae_judgement.enforce()
