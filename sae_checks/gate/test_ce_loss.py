"""
Replacing the activation by its reconstruction must not cost too much next-token cross-entropy.

Paired per sequence, over positions within the SAE's training context.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("ce_loss")
def test_ce_loss(sae_judgement: Judgement) -> None:
    """Replacing the activation by its reconstruction must not cost too much next-token cross-entropy."""
    sae_judgement.enforce()
