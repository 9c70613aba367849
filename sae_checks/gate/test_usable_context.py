"""
An SAE must not cost too much on average over contexts as long as its training context.

Reports up to which length of context that holds, as a multiple of the training context.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("usable_context")
def test_usable_context(sae_judgement: Judgement) -> None:
    """An SAE must not cost too much on average over contexts as long as its training context."""
    sae_judgement.enforce()
