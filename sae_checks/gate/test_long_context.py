"""
Beyond the context it was trained on an SAE must not cost much more than within it.

The increase beyond minus the increase within, from one pass over the same sequences.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("long_context")
def test_long_context(sae_judgement: Judgement) -> None:
    """Beyond the context it was trained on an SAE must not cost much more than within it."""
    sae_judgement.enforce()
