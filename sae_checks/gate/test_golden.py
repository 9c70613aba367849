"""
Golden prompts must have the known probabilities of their answers, clean and spliced.

Collected only for SAEs that have golden prompts in the limits.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("golden")
def test_golden(sae_judgement: Judgement) -> None:
    """Golden prompts must have the known probabilities of their answers, clean and spliced."""
    sae_judgement.enforce()
