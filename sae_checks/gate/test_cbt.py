"""
The model must still choose the right word for the gap in a passage of a children's book, out of ten.

Measures by the probability of the whole filled query, paired per query. The drop in accuracy is limited.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("cbt")
def test_cbt(sae_judgement: Judgement) -> None:
    """The model must still choose the right word for the gap in a passage of a children's book, out of ten."""
    sae_judgement.enforce()
