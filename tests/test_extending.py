"""--sae-max-sequences: an inconclusive check is settled on more sequences of the same order."""

import numpy as np
import pytest

from sae_checks import checks
from sae_checks.executors.local import LocalExecutor
from sae_checks.options import Options
from sae_checks.plugin.asking import settle
from sae_checks.plugin.judging import judge

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
    results = [judge(LocalExecutor(a.plan, lambda *_: None), a, HOOK, checks.CE_LOSS, ()) for a in (first, extended)]
    assert results[0].outcome == ("inconclusive" if n > 40 else outcome), results[0].reason
    assert results[1].outcome == outcome, results[1].reason
    assert results[1].provenance.corpus.n_sequences == n
    if n == 40:
        assert results[1].provenance.corpus.fingerprint == results[0].provenance.corpus.fingerprint
        assert results[1].estimates == results[0].estimates


def test_the_extension_begins_with_what_was_measured(tmp_path):
    """The first sequences of the longer order are those of the shorter one, value by value."""
    extended = asked(tmp_path, 0.12, n_most_sequences=80)
    executor = LocalExecutor(extended.plan, lambda *_: None)
    base, more = executor.text(HOOK, ()).losses, executor.more_text(HOOK).losses
    alone = LocalExecutor(asked(tmp_path, 0.12).plan, lambda *_: None).text(HOOK, ()).losses
    assert len(base.documents) == 40
    assert len(more.documents) == 80
    for one in (alone, more):
        assert np.array_equal(one.documents[:40], base.documents)
        assert one.within.ce_spliced_nats[:40] == pytest.approx(base.within.ce_spliced_nats, abs=1e-3)
