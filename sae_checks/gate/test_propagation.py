"""
The error of the splice must not grow on its way to the last SAE of the release.

Measures the relative error at later hooks over the relative error of the splice, on the study sequences.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("propagation")
def test_propagation(sae_judgement: Judgement) -> None:
    """The error of the splice must not grow on its way to the last SAE of the release."""
    sae_judgement.enforce()
