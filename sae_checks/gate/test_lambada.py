"""
The model must still find the last word of a passage that only the whole passage determines.

Paired per passage. The drop in accuracy is limited.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("lambada")
def test_lambada(sae_judgement: Judgement) -> None:
    """The model must still find the last word of a passage that only the whole passage determines."""
    sae_judgement.enforce()
