"""
The splice's error must not grow on its way to the last SAE of the release.

The relative error at later hooks over that of the splice itself, on a few sequences.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("propagation")
def test_propagation(sae_judgement: Judgement) -> None:
    """The splice's error must not grow on its way to the last SAE of the release."""
    sae_judgement.enforce()
