"""What a profile makes of a verdict: only smoke lets an inconclusive one pass, and never in silence."""

import pytest
from builders import limit

from sae_checks.plan.options import PROFILES
from sae_checks.plugin.fixtures import InconclusiveWarning, Judgement
from sae_checks.record.results import Result


def judgement(outcome, profile):
    told = Result(sae_id="a", check="ce_loss", outcome=outcome, reason="told", limit=limit())
    return Judgement(result=told, profile=profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_failure_fails_in_every_profile(profile):
    """And a pass passes."""
    with pytest.raises(pytest.fail.Exception, match="FAILED: ce_loss of a: told"):
        judgement("failed", profile).enforce()
    judgement("passed", profile).enforce()


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_inconclusive_blocks_but_for_a_smoke_run(profile):
    """Under its own word, not as a failure; a smoke run warns with the same words."""
    told = "INCONCLUSIVE: ce_loss of a: told"
    if profile == "smoke":
        with pytest.warns(InconclusiveWarning, match=told):
            judgement("inconclusive", profile).enforce()
    else:
        with pytest.raises(pytest.fail.Exception, match=told):
            judgement("inconclusive", profile).enforce()
