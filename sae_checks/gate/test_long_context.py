"""
Beyond its training context an SAE must not cost much more than within it.

Measures the increase in cross-entropy beyond minus the increase within, in one pass over the same sequences.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("long_context")
def test_long_context(sae_judgement: Judgement) -> None:
    """Beyond its training context an SAE must not cost much more than within it."""
    sae_judgement.enforce()
