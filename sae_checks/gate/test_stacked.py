"""
All SAEs of one kind of hook, spliced at once, must not cost too much cross-entropy.

Each SAE reads what the earlier ones have replaced.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("stacked")
def test_stacked(sae_judgement: Judgement) -> None:
    """All SAEs of one kind of hook, spliced at once, must not cost too much cross-entropy."""
    sae_judgement.enforce()
