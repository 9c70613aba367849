"""Studies in a run of the gate: their items, their record, their place in the table."""

import shutil

from tiny_release import HOOKS, N_CELLS, copy_saes, write_zero_sae

ON = "--sae-study-sequences=48"
STACK = "all of resid"
OF_LATER = ("propagation", "next_sae", "last_sae")


def outcomes_of(run, check):
    return {subject: outcome for (subject, name), outcome in run.outcomes.items() if name == check}


def test_studies_are_items_like_any_check(gate):
    """Eight checks more: identity SAEs make no error, which is red; nothing is behind the last, and all are at home."""
    run = gate(ON)
    assert run.exit_code == 1, run.text
    assert outcomes_of(run, "propagation") == {**dict.fromkeys(HOOKS[:-1], "failed"), HOOKS[-1]: "not_measured"}
    assert {name for (_, name), outcome in run.outcomes.items() if outcome == "failed"} == {"propagation"}
    assert outcomes_of(run, "distinct") == outcomes_of(run, "own_layer") == dict.fromkeys(HOOKS, "passed")
    assert outcomes_of(run, "random_error") == dict.fromkeys(HOOKS, "not_measured")
    assert outcomes_of(run, "stacked") == {STACK: "passed"}
    assert outcomes_of(run, "stacked_lambada") == {STACK: "reported"}
    assert STACK in run.text
    steps = {
        result.check: [step.sae_id for step in result.stack_steps]
        for result in run.results.values()
        if result.stack_steps
    }
    assert steps == {"stacked": list(HOOKS), "stacked_lambada": list(HOOKS)}


def test_one_study_is_selected_by_its_name(gate):
    """-k and node ids do for studies what they do for any check; what was not selected is recorded as that."""
    run = gate(ON, "-k", "stacked and not lambada")
    assert (run.exit_code, run.counts["passed"]) == (0, 1), run.text
    run = gate(ON, "-k", "own_layer")
    assert (run.exit_code, run.counts["passed"]) == (0, len(HOOKS)), run.text


def test_a_dead_sae_is_red_in_company(gate, tiny, tmp_path):
    """A reconstruction of nothing costs the stack, and its successors cannot read what it leaves; JUnit says where."""
    saes = copy_saes(tiny, tmp_path / "saes")
    shutil.rmtree(saes / HOOKS[0])
    write_zero_sae(saes / HOOKS[0], HOOKS[0])
    run = gate(ON, saes=saes)
    assert run.exit_code == 1, run.text
    assert run.outcomes[STACK, "stacked"] in (
        "failed",
        "inconclusive",
    )  # about as much as the limit, of so small a model
    assert run.results[STACK, "stacked"].stack_steps[0].estimates[2].value > 1
    assert run.outcomes[HOOKS[0], "propagation"] != "not_measured"
    assert {cell.hook for cell in run.results[HOOKS[0], "propagation"].downstream} == {HOOKS[1], HOOKS[2]}


def test_a_broken_sae_leaves_a_stack_of_the_others(gate, tiny, tmp_path):
    """An SAE that cannot be used is an error in its own checks; the stack is made of those that can."""
    saes = copy_saes(tiny, tmp_path / "saes")
    (saes / HOOKS[1] / "cfg.json").write_text("{")
    run = gate(ON, saes=saes)
    assert run.exit_code == 1
    assert run.outcomes[HOOKS[1], "own_layer"] == "error"
    assert run.outcomes[STACK, "stacked"] == "passed"


def test_two_saes_at_one_place_make_no_stack(gate, tiny, tmp_path):
    """Which of them belongs in the stack nobody has said: not measured, with the way out, and the run stays green."""
    saes = copy_saes(tiny, tmp_path / "saes")
    shutil.copytree(saes / HOOKS[0], saes / "another")
    run = gate(ON, saes=saes)
    assert run.outcomes[STACK, "stacked"] == "not_measured"
    assert "2 SAEs are at one place" in run.results[STACK, "stacked"].reason
    assert outcomes_of(run, "distinct")[HOOKS[0]] == "failed"
    assert run.exit_code == 1


def test_none_of_it_without_sequences(gate):
    """--sae-study-sequences=0 leaves them out: no items, no results."""
    run = gate("--sae-study-sequences=0")
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS}), run.text
    assert {check for _, check in run.outcomes}.isdisjoint({*OF_LATER, "distinct", "stacked"})
