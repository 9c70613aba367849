"""
What reaches the last SAE of the release must still be what it can explain.

Explained variance of the last SAE on the activations behind the splice, against the clean ones.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("last_sae")
def test_last_sae(sae_judgement: Judgement) -> None:
    """What reaches the last SAE of the release must still be what it can explain."""
    sae_judgement.enforce()
