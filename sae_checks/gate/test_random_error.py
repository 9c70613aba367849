"""
The error of an SAE must not cost much more than random errors of its size; reported if it has no limit.

Measures the KL of the splice over the KL of a random error, isotropic or with the activations' covariance.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("random_error")
def test_random_error(sae_judgement: Judgement) -> None:
    """The error of an SAE must not cost much more than random errors of its size; reported if it has no limit."""
    sae_judgement.enforce()
