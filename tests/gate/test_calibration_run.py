"""`--sae-calibrate FILE`: limits that the same release passes and a broken one does not, and never over a file."""

import shutil

import pytest
from tiny_release import CHECKS, HOOKS, copy_saes, write_sae, write_zero_sae

from sae_checks.judging import thresholds

pytest_plugins = ["pytester"]


@pytest.fixture
def limits(pytester):
    return pytester.path / "limits.toml"


def test_round_trip(tmp_path, tiny, gate, limits):
    """What was measured passes by the limits made of it; an SAE of the same id that reconstructs nothing is red."""
    run = gate(f"--sae-calibrate={limits}")
    assert (run.exit_code, run.counts) == (0, {"passed": len(HOOKS) * len(CHECKS)}), run.text
    # So few queries leave no room for a drop beyond so wide an interval. And what a usable context is measured against,
    # the limit of ce_loss, moves.
    without = ("cbt", "usable_context")
    n_without = len(HOOKS) * len(without)
    n_limits = len(run.results) - n_without
    assert f"limits to review: {limits}: {n_limits} limits, none for {n_without} (see there)" in run.text
    found = thresholds.load(limits)
    for (sae_id, check), result in run.results.items():
        of_cell = found.limit("tiny-saes", sae_id, check)
        assert of_cell.where.startswith("thresholds.toml [" if check in without else "limits.toml [")
        assert (of_cell.measure, of_cell.kind) == (result.limit.measure, result.limit.kind)
    again = gate(f"--sae-thresholds={limits}")
    assert (again.exit_code, again.counts) == (0, {"passed": len(HOOKS) * len(CHECKS)}), again.text
    assert again.results[HOOKS[1], "ce_loss"].limit.where.startswith("limits.toml [")
    saes = copy_saes(tiny, tmp_path / "tiny-saes")
    shutil.rmtree(saes / HOOKS[1])
    write_zero_sae(saes / HOOKS[1], HOOKS[1])
    broken = gate(f"--sae-thresholds={limits}", saes=saes)
    assert broken.exit_code == 1, broken.text
    failed = {cell for cell, outcome in broken.outcomes.items() if outcome == "failed"}
    assert {(HOOKS[1], check) for check in ("ce_loss", "lambada", "sparsity")} <= failed
    assert {sae_id for sae_id, _ in failed} == {HOOKS[1]}


def test_a_broken_release_is_as_red_as_without(tmp_path, tiny, gate, limits):
    """The run is judged by the limits in force; what failed is marked in the file, what erred has no limit there."""
    saes = copy_saes(tiny, tmp_path / "saes")
    shutil.rmtree(saes / HOOKS[0])
    write_zero_sae(saes / HOOKS[0], HOOKS[0])
    write_sae(saes / "broken", HOOKS[0])
    (saes / "broken" / "cfg.json").write_text("{")
    run = gate(f"--sae-calibrate={limits}", saes=saes)
    assert run.exit_code == 1, run.text
    failed = {cell for cell, outcome in run.outcomes.items() if outcome == "failed"}
    assert {(HOOKS[0], check) for check in ("ce_loss", "sparsity")} <= failed
    text = limits.read_text()
    n_marked = sum(line.startswith("# FAILED ") for line in text.splitlines())
    n_told = sum(f"# no limit for {check} of {HOOKS[0]}: " in text for _, check in failed)
    assert n_marked + n_told == len(failed)  # so few items give no limit for a drop in accuracy
    assert f" limits, {n_marked} as comments because they failed, none for " in run.text
    found = thresholds.load(limits)
    assert found.limit("saes", HOOKS[0], "ce_loss").where == "thresholds.toml [default.ce_loss]"
    assert [f"# no limit for {check} of broken: error: " in text for check in CHECKS] == [True] * len(CHECKS)
    assert '"broken"' not in text


def test_a_file_that_exists_is_a_usage_error(gate, limits):
    """Exit code 4 before anything is measured, and the file stays as it was."""
    limits.write_text("mine")
    run = gate(f"--sae-calibrate={limits}")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR, run.text
    assert "no file is overwritten" in run.text
    assert not run.record_path.exists()
    assert limits.read_text() == "mine"


def test_a_file_that_comes_to_be_meanwhile_is_kept(pytester, gate, limits):
    """Somebody else's file is not overwritten either: the run is red and says so."""
    wrote = f"Path({str(limits)!r}).write_text('mine')"
    pytester.makeconftest(f"from pathlib import Path\ndef pytest_collection_finish(session):\n    {wrote}\n")
    run = gate(f"--sae-calibrate={limits}", "-k", "sparsity")
    assert (run.exit_code, run.counts["passed"]) == (1, 3), run.text
    assert f"no limits were written to {limits}" in run.text
    assert limits.read_text() == "mine"


def test_nothing_measured_writes_nothing(gate, limits):
    """No value, no limit, no file, and it is said."""
    run = gate(f"--sae-calibrate={limits}", "-k", "lambada", lambada=False)
    assert run.exit_code == 1, run.text
    assert "no limits were written" in run.text
    assert not limits.exists()


def test_collecting_alone_writes_nothing(gate, limits):
    """--collect-only measures nothing."""
    assert gate(f"--sae-calibrate={limits}", "--collect-only", "-q").exit_code == 0
    assert not limits.exists()
