"""What a run leaves on the screen: short, the same under CI, the verdict at the end."""

import pytest
from tiny_release import D_MODEL, HOOKS, identity_weights, write_sae, write_zero_sae

from sae_checks.plugin.state import GATE

pytest_plugins = ["pytester"]

SOUND = HOOKS[1]


def test_pytest_lists_the_users_own_tests_and_the_last_lines_the_gate(tmp_path, gate, pytester):
    """Of a red check pytest shows neither message nor summary; only pytest's count stands below the verdict."""
    own = pytester.makepyfile(test_own="def test_of_the_user():\n    assert False, 'own reason'\n")
    write_zero_sae(tmp_path / "saes" / "zero", SOUND)
    run = gate("-k", "of_the_user or sparsity", own, GATE, saes=tmp_path / "saes")
    assert run.counts["failed"] == 2, run.text
    (summary,) = (line for line in run.lines if line.startswith("FAILED ") and "::" in line)
    assert "::test_of_the_user" in summary
    assert run.text.count("FAILED: sparsity ") == 1
    *_, verdict, closing = run.lines
    assert verdict == "saes: FAILED   1 of 1 SAE   (1 failed)"
    assert closing.strip("= ").startswith("2 failed")
    listed = gate("-rf", "-k", "sparsity", saes=tmp_path / "saes")
    assert any(line.startswith("FAILED sae_checks/gate/test_sparsity.py::") for line in listed.lines)


@pytest.mark.parametrize("is_red", [False, True])
def test_the_log_of_26_saes_is_short(tmp_path, gate, monkeypatch, is_red):
    """The same lines under CI, but for durations, and a line of dots per check."""
    for i in range(26):
        folder = tmp_path / "saes" / f"l0_{i}"
        if is_red:
            write_zero_sae(folder, SOUND)
        else:
            write_sae(folder, SOUND, weights=identity_weights(D_MODEL))
    found = []
    for ci in ("", "true"):
        monkeypatch.setenv("CI", ci)
        found.append(gate("-k", "ce_loss or sparsity or lambada or cbt", saes=tmp_path / "saes"))
    assert all(len(run.lines) < 100 for run in found), found[0].text
    # measuring takes its time, and what is written and when it was is of each run
    first, second = (
        [line for line in run.lines if line.startswith(("l0_", "saes:", "ce_loss", "sae_checks/gate"))] for run in found
    )
    assert first == second
    assert sum(line.startswith("sae_checks/gate/test_sparsity.py") for line in first) == 1
    assert first[-1].startswith("saes: FAILED" if is_red else "saes: PASSED")
