"""
The reconstruction must explain the activations it was trained on, with few latents.

The cheapest detector of an SAE that was wrongly loaded or reads another basis.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("sparsity")
def test_sparsity(sae_judgement: Judgement) -> None:
    """The reconstruction must explain the activations it was trained on, with few latents."""
    sae_judgement.enforce()
