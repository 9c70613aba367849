"""
The model must still find last words with all SAEs of one kind of place in place.

The paired drop in accuracy on Lambada passages.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("stacked_lambada")
def test_stacked_lambada(sae_judgement: Judgement) -> None:
    """The model must still find last words with all SAEs of one kind of place in place."""
    sae_judgement.enforce()
