"""--sae-baseline: red exactly where something has become worse, refused where the runs did not measure the same."""

import json
import re
import shutil

import pytest
from gate_run import properties_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from strategies import hostile_names
from test_xdist import STAND_IN, WHO
from tiny_release import D_MODEL, HOOKS, copy_saes, identity_weights, write_jsonl, write_sae

from sae_checks import checks
from sae_checks.commands import main
from sae_checks.record import record
from sae_checks.run.settle import measured_cell

pytest_plugins = ["pytester"]

COMPARED = ("ce_loss", "lambada", "cbt", "long_context", "sparsity")
WORSE, SOUND, ALSO_SOUND = HOOKS
AGAINST = "no_regression"
FEW = ("-k", "ce_loss or sparsity")
OF_FEW = ("-k", "(ce_loss or sparsity) and not stacked")
"""-k sees the compared check in the id of a comparison."""


def spoil(saes, by):
    """The SAE at WORSE again, its decoder *by* so much too short."""
    shutil.rmtree(saes / WORSE)
    weights = {"W_dec": by * identity_weights(D_MODEL)["W_dec"]}
    write_sae(saes / WORSE, WORSE, weights={**identity_weights(D_MODEL), **weights})


def pinned(run):
    """The option that compares with the record of *run*, which is copied away from the folder of --sae-out."""
    return f"--sae-baseline={shutil.copy(run.record_path, run.record_path.parents[1] / 'pinned.json')}"


@pytest.fixture
def saes(tiny, tmp_path):
    """A release to damage."""
    return copy_saes(tiny, tmp_path / "saes")


@given(st.text() | hostile_names, st.sampled_from(checks.CHECKS))
def test_a_comparison_knows_what_is_compared(sae_id, check):
    """The id of a comparison leads back to its cell, whatever the SAE id contains."""
    cell = (sae_id, check.name)
    assert measured_cell((f"{sae_id}-{check.name}", AGAINST)) == measured_cell(cell) == cell


def comparisons(run):
    return {sae_id: outcome for (sae_id, check), outcome in run.outcomes.items() if check == AGAINST}


def test_the_same_saes_are_no_worse(gate):
    """Every check that has a margin is compared, and differs by exactly nothing; without a baseline none is."""
    before = gate()
    assert comparisons(before) == {}
    assert "baseline" not in before.text
    run = gate("--sae-baseline=last")
    assert run.exit_code == 0, run.text
    assert run.counts["passed"] == before.counts["passed"] + len(comparisons(run))
    found = {cell: r for cell, r in run.results.items() if cell[1] == AGAINST}
    assert {f"{hook}-{check}" for hook in HOOKS for check in COMPARED} <= {sae_id for sae_id, _ in found}
    for result in found.values():
        assert result.outcome == "passed"
        assert result.reason.startswith("the same: ")
        (difference,) = (e for e in result.estimates if e.measure == "difference")
        assert (difference.low, difference.value, difference.high) == (0, 0, 0)
    (head,) = (line for line in run.lines if line.startswith("sae-checks: baseline last, the run of "))
    assert re.search(r"\((just now|1 minute ago)\) in \S*/out/last-green.json", head)
    (without,) = re.findall(r"because they have no margin: (.*)", run.text)
    assert "usable_context" in without


def test_a_worse_sae_is_red_exactly_there(saes, gate):
    """One SAE of three loses: its comparisons fail, in JUnit with all numbers; those of the others pass."""
    before = pinned(gate(*FEW, saes=saes))
    spoil(saes, 0.5)
    run = gate(*OF_FEW, before, saes=saes)
    assert run.exit_code == 1
    selected = {f"{hook}-{check}" for hook in HOOKS for check in ("ce_loss", "sparsity")}
    found = {subject: outcome for subject, outcome in comparisons(run).items() if subject in selected}
    assert found == {subject: "failed" if WORSE in subject else "passed" for subject in selected}
    case = run.junit[f"{WORSE}-ce_loss", AGAINST]
    told = properties_of(case)
    assert case.find("failure") is not None
    assert case.get("name") == f"test_no_regression[{WORSE}-ce_loss]"
    assert float(told["difference"]) > float(told["difference.low"]) > float(told["limit.max"]) == 0.01
    assert "2 times too short" in told["diagnosis"]
    row, last = (line for line in run.lines if line.startswith(f"{WORSE}-sparsity "))
    assert row.endswith("failed")
    assert last.endswith(" < −0.01")  # noqa: RUF001 -- the minus sign


def test_worse_within_the_margin_is_said(saes, gate, tmp_path):
    """A check that is worse but within its margin passes; record and table say so."""
    before = pinned(gate(*FEW, "--sae-profile=full", saes=saes))  # full: the guard takes 40 pairs
    spoil(saes, 0.999)
    run = gate(*OF_FEW, before, saes=saes)
    result = run.results[f"{WORSE}-sparsity", AGAINST]
    assert result.outcome == "passed"
    assert result.reason.startswith("worse, but within the margin: -")
    assert any(line.startswith(f"{WORSE}-sparsity ") and "worse, but within the margin" in line for line in run.lines)
    # compared alone it is measured alone
    again = gate("-k", f"no_regression and {WORSE} and sparsity", pinned(run), saes=saes)
    assert (again.exit_code, again.counts["passed"]) == (0, 1), again.text


def test_another_text_model_seed_or_context_is_refused_before_measuring(saes, tiny, gate, tmp_path):
    """Exit code 4: what differs, in both runs, and what to type. A copy of the same files is the same."""
    kept = shutil.copy(gate("-k", "ce_loss", saes=saes).record_path, tmp_path / "kept.json")
    shorter = write_jsonl(
        tmp_path / "shorter.jsonl", [json.loads(line)["text"] for line in tiny.corpus.read_text().splitlines()[:40]]
    )
    model = shutil.copytree(tiny.model, tmp_path / "model")
    same = (f"--sae-model={model}", f"--sae-corpus={shutil.copy(tiny.corpus, tmp_path / 'copy.jsonl')}")
    asked = ("-k", "ce_loss and not stacked", f"--sae-baseline={kept}")
    assert gate(*asked, *same, saes=saes).exit_code == 0
    (weights,) = model.glob("*.safetensors")
    tensors = {name: tensor * 2 for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    for more, what, before, now in (
        (f"--sae-corpus={shorter}", "corpus", tiny.corpus, shorter),
        (f"--sae-model={model}", "model", tiny.model, model),
        ("--sae-seed=1", "seed", 0, 1),
        ("--sae-context=8", "context length", 32, 8),
        ("--sae-special-tokens=replace", "rule for special tokens", "keep", "replace"),
    ):
        run = gate(*asked, more, saes=saes)
        assert run.exit_code == 4, run.text
        assert f"the baseline {kept} is of another {what}" in run.text
        assert f"  expected: {before}, as in the baseline" in run.text
        assert f"  got:      {now}" in run.text
        option = more.partition("=")[0]
        assert f"  try:      {option}={before}; or pytest without --sae-baseline" in run.text


def test_a_text_that_cannot_be_told_before_is_refused_when_it_is_measured(saes, gate):
    """Texts are the same file, and what is scored of them differs: each comparison is an error."""
    before = pinned(gate("-k", "ce_loss", saes=saes))
    run = gate("-k", "ce_loss", before, "--sae-special-tokens=no-bos", saes=saes)
    assert run.exit_code == 1, run.text
    assert "BOS before every sequence is not the same" in run.text


def test_a_baseline_without_a_value_is_red(gate):
    """What the baseline has not measured is an error of each comparison that was selected, and says so."""
    before = pinned(gate("-k", "ce_loss"))
    run = gate("-k", "sparsity", before)
    assert run.exit_code == 1
    assert "the baseline has no value of it" in run.text
    selected = [outcome for cell, outcome in comparisons(run).items() if cell.endswith("-sparsity")]
    assert selected == ["error"] * len(HOOKS)
    before_it_is_compared = gate("-k", "sparsity and not no_regression", before)
    assert before_it_is_compared.exit_code == 0, before_it_is_compared.text


def test_what_is_no_baseline_stops_the_run_at_once(gate, tmp_path, saes):
    """Exit code 4, before anything is measured: no record, and no SAE in common."""
    assert "--sae-baseline" in gate("--sae-baseline=none.json").text
    assert gate("--sae-baseline=none.json").exit_code == 4
    before = gate("-k", "ce_loss")
    kept = shutil.copy(before.record_path, tmp_path / "kept.json")
    (tmp_path / "other.json").write_text(before.record_path.read_text().replace('"schema": 4', '"schema": 99'))
    assert "its schema is 99" in (run := gate(f"--sae-baseline={tmp_path / 'other.json'}")).text
    assert run.exit_code == 4
    for hook in HOOKS:
        (saes / hook).rename(saes / f"new-{hook}")
    run = gate(f"--sae-baseline={kept}", saes=saes)
    assert run.exit_code == 4
    assert "no SAE in common" in run.text


def test_a_regression_stays_red(saes, gate, tmp_path):
    """However often it is run, and whatever part of it in between; until a person accepts it, with a reason."""
    url = tmp_path / "history"
    assert gate("--sae-cbt=none", f"--sae-history={url}", saes=saes).exit_code == 0
    spoil(saes, 0.9)
    asked = ("--sae-baseline=last", "--sae-cbt=none")
    for more in ((), ("-x",), ("-k", "sparsity and not no_regression"), ("--lf",), ("-k", ALSO_SOUND), ()):
        run = gate(*asked, *more, saes=saes)
        assert (run.exit_code == 0) == ("-k" in more), run.text
        assert "last green run:" not in run.text
    assert "failed" in comparisons(run).values()
    again = gate(*asked, f"--sae-history={url}", "--sae-out=other", saes=saes)  # `last` from the history
    assert again.exit_code == 1, again.text
    out = run.record_path.parent
    assert main.main(["accept", str(out), "--reason", "trained on cleaner text"]) == 0
    run = gate(*asked, saes=saes)
    assert run.exit_code == 0, run.text
    assert "accepted: trained on cleaner text" in run.text
    assert "accepted: trained on cleaner text" in dict(run.record.options)["baseline_run"]
    assert "accepted: trained on cleaner text" in out.joinpath("report", "index.html").read_text()
    assert dict(record.read(out / "last-green.json").options).get("accepted") is None, "green, it takes its place"


def test_workers_compare_what_they_measure(saes, gate, pytester):
    """pytest -n: each SAE is compared by the worker that has measured it, with the same outcomes."""
    before = gate(*FEW, saes=saes)
    spoil(saes, 0.5)
    baseline = pinned(before)
    pytester.makeconftest("import sys\nsys.path.insert(0, 'stand_in')\n" + WHO)
    pytester.mkdir("stand_in").joinpath("sae_lens.py").write_text(STAND_IN)
    run = gate("-n2", *OF_FEW, baseline, saes=saes)
    assert (before.exit_code, run.exit_code) == (0, 1)
    assert (pytester.path / "stand-in-was-used").exists()
    outcomes = {subject: outcome for subject, outcome in comparisons(run).items() if "ce_loss" in subject}
    assert outcomes == {f"{hook}-ce_loss": "failed" if hook == WORSE else "passed" for hook in HOOKS}
    workers = dict(reversed(line.split(" ", 1)) for line in (pytester.path / "who.txt").read_text().splitlines())
    for hook in HOOKS:
        on = {worker for nodeid, worker in workers.items() if f"[{hook}]" in nodeid or f"[{hook}-ce_loss]" in nodeid}
        assert len(on) == 1, hook
