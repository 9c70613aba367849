"""From the last lines of a run alone one knows which SAE is wrong, and why."""

import damaged
import gate_run
import pytest

N_LAST = 20


@pytest.mark.parametrize("case", damaged.CASES)
def test_the_last_lines_name_the_sae_and_the_cause(tmp_path, case):
    make, sae_id, cause = damaged.CASES[case]
    run = gate_run.run_apart(tmp_path, "-p", "no:cacheprovider", f"--sae-release={make(tmp_path)}", *damaged.ARGS)
    assert run.exit_code == 1
    red = [r for r in run.record.results if r.outcome == "failed" and r.sae_id in damaged.HOOKS]
    assert sae_id in {result.sae_id for result in red}
    assert all(cause in r.diagnosis.sentence for r in red if r.sae_id == sae_id)
    assert all(r.diagnosis is None for r in run.record.results if r.outcome == "passed")
    case_of = run.junit[next((r.sae_id, r.check) for r in red if r.sae_id == sae_id)]
    assert cause in gate_run.properties_of(case_of)["diagnosis"]
    last = " ".join(" ".join(run.lines[-N_LAST:]).split())
    assert sae_id in last
    assert cause in last
