"""
Prompts whose answers are known must be answered with the known probabilities.

Only SAEs that have golden prompts in the limits; everything else has no such test.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("golden")
def test_golden(sae_judgement: Judgement) -> None:
    """Prompts whose answers are known must be answered with the known probabilities, clean and spliced."""
    sae_judgement.enforce()
