"""`sae-checks calibrate`: limits that the same release passes and a broken one does not, from the record of a run."""

import shutil

import pytest
from tiny_release import CHECKS, HOOKS, copy_saes, write_sae, write_zero_sae

from sae_checks.commands import main
from sae_checks.judging import thresholds

pytest_plugins = ["pytester"]


@pytest.fixture
def limits(pytester):
    return pytester.path / "limits.toml"


@pytest.fixture
def calibrated(gate, limits, capsys):
    """The run of a release, what the command says of its record, and the limits."""

    def run(*more, **how):
        run = gate("--sae-profile=full", *more, **how)
        capsys.readouterr()
        assert main.main(["calibrate", str(run.record_path), f"--out={limits}"]) == 0
        return run, capsys.readouterr().out, thresholds.load(limits)

    return run


def test_round_trip(tmp_path, tiny, gate, limits, calibrated):
    """What was measured passes by the limits made of it; an SAE of the same id that reconstructs nothing is red."""
    run, said, found = calibrated()
    assert (run.exit_code, run.counts) == (0, {"passed": len(HOOKS) * len(CHECKS)}), run.text
    # So few queries leave no room for a drop beyond so wide an interval. And what a usable context is measured against,
    # the limit of ce_loss, moves.
    without = ("cbt", "usable_context")
    n_without = len(HOOKS) * len(without)
    n_limits = len(run.results) - n_without
    assert said == f"limits to review: {limits}: {n_limits} limits, none for {n_without} (see there)\n"
    for (sae_id, check), result in run.results.items():
        of_cell = found.limits("tiny-saes", sae_id, check)[0]
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


def test_limits_follow_a_name_and_not_a_folder(tmp_path, tiny, gate, limits, calibrated):
    """Limits of a named run apply in any folder under that name. Without it nothing applies, which is exit code 4."""
    run, _, _ = calibrated("--sae-name=my saes [v1]", "-k", "ce_loss or sparsity")
    assert run.record.release.name == "my saes [v1]"
    saes = copy_saes(tiny, tmp_path / "step_10000")
    asked = (f"--sae-thresholds={limits}", "-k", "ce_loss or sparsity")
    again = gate("--sae-name=my saes [v1]", *asked, saes=saes)
    assert again.exit_code == 0, again.text
    n = 2 * len(HOOKS)
    n_all = len(HOOKS) * len(CHECKS)
    assert f"sae-checks: limits: limits.toml for {n} of {n_all} checks; shipped for {n_all - n}" in again.lines
    assert {
        result.limit.where.partition(" ")[0] for result in again.results.values() if result.outcome == "passed"
    } == {"limits.toml"}
    for more in ((), (f"--sae-id={HOOKS[0]}",), ("--sae-shard=1/2",), ("-k", "cbt")):
        refused = gate(*asked, *more, saes=saes)
        assert refused.exit_code == 4, refused.text
        assert "no table of limits.toml matches release 'step_10000'" in refused.text
        assert "  try:      --sae-name='my saes [v1]'" in refused.lines
    other = gate("--sae-name=my saes [v1]", f"--sae-id={HOOKS[0]}", *asked, saes=saes)
    assert not [line for line in other.lines if "match nothing" in line], other.text  # the whole release counts


def test_what_failed_and_what_erred_gets_no_limit(tmp_path, tiny, limits, calibrated):
    """What failed is marked in the file, what erred has no limit there."""
    saes = copy_saes(tiny, tmp_path / "saes")
    shutil.rmtree(saes / HOOKS[0])
    write_zero_sae(saes / HOOKS[0], HOOKS[0])
    write_sae(saes / "broken", HOOKS[0])
    (saes / "broken" / "cfg.json").write_text("{")
    run, said, found = calibrated(saes=saes)
    assert run.exit_code == 1, run.text
    failed = {cell for cell, outcome in run.outcomes.items() if outcome == "failed"}
    assert {(HOOKS[0], check) for check in ("ce_loss", "sparsity")} <= failed
    text = limits.read_text()
    n_marked = sum(line.startswith("# FAILED ") for line in text.splitlines())
    n_told = sum(f"# no limit for {check} of {HOOKS[0]}: " in text for _, check in failed)
    assert n_marked + n_told == len(failed)  # so few items give no limit for a drop in accuracy
    assert f" limits, {n_marked} as comments because they failed, none for " in said
    assert found.limits("saes", HOOKS[0], "ce_loss")[0].where == "thresholds.toml [default.ce_loss.ce_increase]"
    assert [f"# no limit for {check} of broken: error: " in text for check in CHECKS] == [True] * len(CHECKS)
    assert '"broken"' not in text


def test_another_profile_is_refused(gate, limits, capsys):
    """Values of a run that stopped early are no ground for limits; the message says what to type."""
    run = gate("-k", "sparsity")
    assert main.main(["calibrate", str(run.record_path), f"--out={limits}"]) == 4
    said = capsys.readouterr().err
    assert "it is of a run with --sae-profile=release" in said
    assert "--sae-profile=full --sae-out=" in said
    assert not limits.exists()
