"""How a profile turns an outcome into a test: only smoke lets an inconclusive check pass."""

import pytest
from builders import limit

from sae_checks.plan.options import PROFILES
from sae_checks.plugin.fixtures import Judgement
from sae_checks.record.results import Result


def judgement(outcome, profile):
    told = Result(sae_id="a", check="ce_loss", outcome=outcome, reason="told", limit=limit())
    return Judgement(result=told, profile=profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_failure_fails_in_every_profile(profile):
    """A failed check fails its test and a passed check passes, in every profile."""
    with pytest.raises(pytest.fail.Exception, match=r"FAILED: ce_loss told \(a\)"):
        judgement("failed", profile).enforce()
    judgement("passed", profile).enforce()


@pytest.mark.parametrize("profile", PROFILES)
def test_an_inconclusive_check_fails_except_in_smoke(profile):
    """The message says INCONCLUSIVE and not FAILED; smoke lets it pass."""
    told = r"INCONCLUSIVE: ce_loss told \(a\)"
    if profile == "smoke":
        judgement("inconclusive", profile).enforce()
    else:
        with pytest.raises(pytest.fail.Exception, match=told):
            judgement("inconclusive", profile).enforce()
