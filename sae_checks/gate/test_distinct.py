"""
No two SAEs of a release have the same weights.

A release was once published with one SAE in two places.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("distinct")
def test_distinct(sae_judgement: Judgement) -> None:
    """No two SAEs of a release have the same weights."""
    sae_judgement.enforce()
