"""
The reconstruction must explain the activations that the SAE was trained on, with few latents.

The cheapest check that finds an SAE that is loaded wrongly or reads another basis.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("sparsity")
def test_sparsity(sae_judgement: Judgement) -> None:
    """The reconstruction must explain the activations that the SAE was trained on, with few latents."""
    sae_judgement.enforce()
