"""
An SAE must cost least where it belongs.

Its increase in cross-entropy at its own hook against the same place of the blocks beside it.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("own_layer")
def test_own_layer(sae_judgement: Judgement) -> None:
    """An SAE must cost least where it belongs."""
    sae_judgement.enforce()
