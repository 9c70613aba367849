"""
The SAE's error against random errors of the same size: reported, and judged where a limit is written.

KL after the splice over KL after an error drawn at random, evenly or with the activations' covariance.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("random_error")
def test_random_error(sae_judgement: Judgement) -> None:
    """The SAE's error against random errors of the same size: reported, and judged where a limit is written."""
    sae_judgement.enforce()
