"""
The model must still choose the word of a children's book that its passage calls for, out of ten.

By the probability of the whole filled query, paired per query; the drop in accuracy is limited.
"""

import pytest

from sae_checks.plugin.fixtures import Judgement


@pytest.mark.sae_check("cbt")
def test_cbt(sae_judgement: Judgement) -> None:
    """The model must still choose the word of a children's book that its passage calls for, out of ten."""
    sae_judgement.enforce()
