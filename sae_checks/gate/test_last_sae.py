"""
The last SAE of the release must still explain the activations behind the splice.

Compares its explained variance on the activations behind the splice with that on the clean ones.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("last_sae")
def test_last_sae(sae_judgement: Judgement) -> None:
    """The last SAE of the release must still explain the activations behind the splice."""
    sae_judgement.enforce()
