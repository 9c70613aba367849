"""--sae-max-sequences: an inconclusive check is settled on more sequences of the same order."""

import pytest

from sae_checks import checks
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.run.judge import judge
from sae_checks.run.settle import settle

pytestmark = pytest.mark.slow
HOOK = "blocks.3.hook_resid_post"


def asked(tmp_path, limit, **more):
    limits = tmp_path / "limits.toml"
    limits.write_text(
        f'schema = 1\n[default.ce_loss]\nmeasure = "ce_increase"\nmax = {limit}\n'
        'unit = "nats/token"\nsource = "a test"\n'
    )
    return settle(
        Options(
            release="demo",
            sae_ids=(HOOK,),
            device="cpu",
            thresholds=limits,
            n_context_tokens=65,
            n_sequences=40,
            **more,
        )
    )


@pytest.mark.parametrize(("limit", "n", "outcome"), [(0.12, 200, "passed"), (0.3, 40, "passed"), (0.01, 40, "failed")])
def test_what_is_inconclusive_is_measured_further(tmp_path, limit, n, outcome):
    """Near the limit 40 sequences do not tell, and 200 do; what 40 decide stays as it was decided."""
    first, extended = asked(tmp_path, limit), asked(tmp_path, limit, n_most_sequences=200)
    results = [judge(LocalExecutor(a.plan, lambda *_: None), a, HOOK, checks.CE_LOSS) for a in (first, extended)]
    assert results[0].outcome == ("inconclusive" if n > 40 else outcome), results[0].reason
    assert results[1].outcome == outcome, results[1].reason
    assert results[1].provenance.corpus.n_sequences == n
    if n == 40:
        assert results[1].provenance.corpus.fingerprint == results[0].provenance.corpus.fingerprint
        assert results[1].estimates == results[0].estimates


def test_the_extension_begins_with_what_the_plan_has(tmp_path):
    """The first sequences of the longer order are the shorter one's; what is kept for a baseline is the plan's."""
    short, extended = asked(tmp_path, 0.12), asked(tmp_path, 0.12, n_most_sequences=200)
    results = [judge(LocalExecutor(a.plan, lambda *_: None), a, HOOK, checks.CE_LOSS) for a in (short, extended)]
    assert [r.estimates[0].n for r in results] == [40, 80]  # of 200 that there are: it is decided
    samples = [r.paired_sample for r in results]
    assert samples[0].fingerprint == samples[1].fingerprint
    assert samples[1].n == 40
    assert samples[1].numerators == pytest.approx(samples[0].numerators, abs=1e-3)
    assert samples[1].denominators == samples[0].denominators
