"""No check of an SAE may be worse than in the baseline (--sae-baseline) by more than its margin."""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("no_regression")
def test_no_regression(sae_judgement: Judgement) -> None:
    """No check of an SAE may be worse than in the baseline (--sae-baseline) by more than its margin."""
    sae_judgement.enforce()
