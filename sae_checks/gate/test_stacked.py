"""
All SAEs of one kind of place at once must not cost too much.

The increase in cross-entropy with every SAE reading what the earlier ones left.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("stacked")
def test_stacked(sae_judgement: Judgement) -> None:
    """All SAEs of one kind of place at once must not cost too much."""
    sae_judgement.enforce()
