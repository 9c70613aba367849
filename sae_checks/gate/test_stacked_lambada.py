"""
The model must still find last words with all SAEs of one kind of hook spliced at once.

Measures the paired drop in accuracy on Lambada passages.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("stacked_lambada")
def test_stacked_lambada(sae_judgement: Judgement) -> None:
    """The model must still find last words with all SAEs of one kind of hook spliced at once."""
    sae_judgement.enforce()
