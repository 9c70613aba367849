"""
No two SAEs of a release may have the same weights.

Such releases exist: one was published with one SAE in two places.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("distinct")
def test_distinct(sae_judgement: Judgement) -> None:
    """No two SAEs of a release may have the same weights."""
    sae_judgement.enforce()
