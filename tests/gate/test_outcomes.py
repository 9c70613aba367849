"""What each kind of SAE, model and corpus leads to: green, red, an error or a reason, and the exit code."""

import json
import pickle
import re
import shutil

import pytest
from gate_run import properties_of
from tiny_release import (
    CHECKS,
    D_MODEL,
    HOOKS,
    N_CELLS,
    N_CHECKS,
    N_CONTEXT,
    NOT_OF_THIS_RELEASE,
    copy_saes,
    identity_weights,
    write_sae,
    write_zero_sae,
)

from sae_checks import checks

pytest_plugins = ["pytester"]

BROKEN, SOUND, ALSO_SOUND = HOOKS


def test_identity_is_green(gate):
    """An exact reconstruction passes every check of every SAE: exit code 0."""
    run = gate()
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS}), run.text
    assert run.outcomes == {(hook, check): "passed" for hook in HOOKS for check in CHECKS}


def test_identity_measures_everything(gate):
    """Every measure of every check is there, and an exact reconstruction costs nothing."""
    run = gate("--sae-profile=full")
    for (_, name), result in run.results.items():
        values = {e.measure: e.value for e in result.estimates}
        assert set(values) == {m.name for m in checks.named(name).measures} - NOT_OF_THIS_RELEASE
    found = {e.measure: e.value for check in CHECKS for e in run.results[SOUND, check].estimates}
    for measure in ("ce_increase", "kl", "accuracy_drop", "degradation", "ce_increase_beyond"):
        assert found[measure] == pytest.approx(0, abs=1e-6), measure
    for measure in ("explained_variance", "ce_recovered", "accuracy_clean", "accuracy_spliced", "perplexity_ratio"):
        assert found[measure] == pytest.approx(1, abs=1e-6), measure
    assert found["l0"] == found["l0_max"] == pytest.approx(D_MODEL)
    assert found["dead_latents"] == found["answers_lost"] == found["answers_won"] == 0
    assert found["usable_context_tokens"] == found["measured_context_tokens"] == N_CONTEXT - 1
    assert found["probability_spliced"] == pytest.approx(found["probability_clean"])
    assert found["reciprocal_rank_clean"] == found["reciprocal_rank_spliced"] == 1
    assert found["ce_ablated"] > found["ce_clean"] + 0.5


def test_identity_draws_the_curves(gate):
    """What is scored has 30 positions of 32, since BOS predicts nothing; what is replaced has one more."""
    run = gate("-k", "long_context")
    curves = {curve.measure: curve for curve in run.results[SOUND, "long_context"].curves}
    assert {name: (c.position[0], c.position[-1], len(c.n_sequences)) for name, c in curves.items()} == {
        "ce_increase": (1, 30, 30),
        "kl": (1, 30, 30),
        "l0": (1, 31, 31),
        "explained_variance": (1, 31, 31),
    }
    assert set(curves["l0"].value) == {D_MODEL}
    assert set(curves["explained_variance"].value) == {1.0}


def test_zero_decoder_is_red(tmp_path, gate):
    """A reconstruction of nothing fails on loss, Lambada, choices and variance: exit code 1, each a <failure>."""
    run = gate(saes=write_zero_sae(tmp_path / "saes" / "zero", SOUND).parent)
    assert (run.exit_code, run.counts) == (1, {"failed": N_CHECKS}), run.text
    assert run.outcomes["zero", "long_context"] == "inconclusive"  # as bad within its context as beyond it
    for check in ("ce_loss", "lambada", "cbt", "usable_context", "sparsity"):
        assert run.outcomes["zero", check] == "failed"
        message = run.junit["zero", check].find("failure").get("message")
        assert re.match(rf"Failed: FAILED: {check} \S+ [<>] \S+.* \(zero\)$", message.splitlines()[0]), message


def test_answers_that_flipped_are_told(tmp_path, tiny, gate):
    """The record has passages whose answer was lost, ends and answers as the file has them; an exact SAE flips none."""
    saes = copy_saes(tiny, tmp_path / "saes")
    write_zero_sae(saes / "zero", SOUND)
    run = gate("-k", "lambada", saes=saes)
    passages = [json.loads(line)["text"] for line in tiny.lambada.read_text().splitlines()]
    flips = run.results["zero", "lambada"].changed_answers
    assert 0 < len(flips) <= 10
    for flip in flips:
        assert flip.change == "lost"
        assert f"{flip.passage_end} {flip.answer}" == passages[flip.item_index][-201 - len(flip.answer) :]
        assert flip.probability_spliced < flip.probability_clean
    assert run.results[SOUND, "lambada"].changed_answers == ()


def test_choices_that_flipped_are_told(tmp_path, tiny, gate):
    """As many lost choices as the record's accuracies count, each as its file has it; an exact SAE flips none."""
    saes = copy_saes(tiny, tmp_path / "saes")
    write_zero_sae(saes / "zero", SOUND)
    run = gate("-k", "cbt", saes=saes)
    queries = [json.loads(line) for line in tiny.cbt.read_text().splitlines()]
    result = run.results["zero", "cbt"]
    drop = next(e for e in result.estimates if e.measure == "choice_accuracy_drop")
    assert [flip.change for flip in result.changed_choices] == ["lost"] * round(
        drop.value * drop.n
    )  # clean all are right
    assert len(result.changed_choices) > 0
    for flip in result.changed_choices:
        query = queries[flip.query_index]
        assert (flip.question, flip.answer) == (query["question"], query["answer"])
        assert " ".join(query["sentences"]).endswith(flip.passage_end)
        assert flip.chosen_instead in set(query["options"]) - {query["answer"]}
        assert flip.probability_spliced < flip.probability_clean
    assert run.results[SOUND, "cbt"].changed_choices == ()


def test_red_and_green_in_one_release(tmp_path, tiny, gate):
    """A red SAE does not change the outcomes of the others."""
    saes = copy_saes(tiny, tmp_path / "saes")
    write_zero_sae(saes / "zero", SOUND)
    run = gate(saes=saes)
    assert (run.exit_code, run.counts) == (1, {"failed": N_CHECKS, "passed": N_CELLS}), run.text
    assert {outcome for (sae_id, _), outcome in run.outcomes.items() if sae_id != "zero"} == {"passed"}


def _malformed_cfg(sae):
    (sae / "cfg.json").write_text("{not json")


def _cfg_of_another_kind(sae):
    (sae / "cfg.json").write_text("[1, 2]")


def _binary_cfg(sae):
    (sae / "cfg.json").write_bytes(b"\xff\xfe\x00\x80")


def _no_weights(sae):
    (sae / "sae_weights.safetensors").unlink()


def _truncated_weights(sae):
    path = sae / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def _empty_weights(sae):
    (sae / "sae_weights.safetensors").write_bytes(b"")


def _wrong_width(sae):
    shutil.rmtree(sae)
    write_sae(sae, BROKEN, d_in=8)


def _width_that_weights_deny(sae):
    path = sae / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "d_sae": 10**9}))


def _nan_weights(sae):
    import torch

    shutil.rmtree(sae)
    bad = torch.zeros(2 * D_MODEL)
    bad[3] = torch.nan
    write_sae(sae, BROKEN, weights={"b_enc": bad})


def _unknown_hook(sae):
    shutil.rmtree(sae)
    write_sae(sae, "blocks.0.hook_mlp_post")


def _hook_beyond(sae):
    shutil.rmtree(sae)
    write_sae(sae, "blocks.2.hook_resid_pre")


def _no_bos_rule(sae):
    shutil.rmtree(sae)
    write_sae(sae, BROKEN, metadata={"prepend_bos": None})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_malformed_cfg, "cfg.json cannot be used: not JSON"),
        (_cfg_of_another_kind, "cfg.json cannot be used: not a JSON object"),
        (_binary_cfg, "cfg.json cannot be used: not JSON"),
        (_no_weights, "no sae_weights.safetensors"),
        (_truncated_weights, "truncated"),
        (_empty_weights, "too few for a safetensors header"),
        (_wrong_width, "at blocks.0.hook_resid_pre the SAE has 8 dimensions and the model 16"),
        (_width_that_weights_deny, "cfg.json (d_in, d_out, d_sae) asks for"),
        (_nan_weights, "1 of 32 numbers in b_enc are not finite"),
        (_unknown_hook, "is not known"),
        (_hook_beyond, "lies beyond the model's last layer"),
        (_no_bos_rule, "it is not known whether it was trained with a BOS token"),
    ],
)
def test_one_broken_sae_is_an_error_and_the_others_are_judged(tmp_path, tiny, gate, damage, said):
    """What is wrong with one SAE is a JUnit <error> of all its checks, in one sentence; the others are judged."""
    saes = copy_saes(tiny, tmp_path / "saes")
    damage(saes / BROKEN)
    run = gate(saes=saes)
    assert (run.exit_code, run.counts) == (1, {"passed": N_CELLS - N_CHECKS, "errors": N_CHECKS}), run.text
    for check in CHECKS:
        result, case = run.results[BROKEN, check], run.junit[BROKEN, check]
        assert (result.outcome, result.estimates) == ("error", ())
        assert said in result.reason
        assert case.find("failure") is None
        assert said in case.find("error").text
        assert [run.outcomes[sae_id, check] for sae_id in (SOUND, ALSO_SOUND)] == ["passed", "passed"]


class _Payload:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["sae_weights.pt", "ae.pkl", "pytorch_model.bin"])
def test_pickle_is_never_opened(tmp_path, tiny, gate, name):
    """An SAE that is only there as a pickle is an error, and what hides in the pickle does not run."""
    saes = copy_saes(tiny, tmp_path / "saes")
    _no_weights(saes / BROKEN)
    (saes / BROKEN / name).write_bytes(pickle.dumps(_Payload(tmp_path / "ran")))
    run = gate(saes=saes)
    assert (run.exit_code, run.counts) == (1, {"passed": N_CELLS - N_CHECKS, "errors": N_CHECKS}), run.text
    assert "its weights are a pickle" in run.results[BROKEN, "ce_loss"].reason
    assert not (tmp_path / "ran").exists()
    pickle.loads((saes / BROKEN / name).read_bytes()).close()
    assert (tmp_path / "ran").exists(), "the payload is one that would have run"


def test_unknown_training_context(tmp_path, gate):
    """Without context_size long_context is skipped with its reason, and the other checks decide."""
    run = gate(saes=write_sae(tmp_path / "saes" / "a", SOUND, metadata={"context_size": None}).parent)
    assert (run.exit_code, run.counts) == (0, {"passed": N_CHECKS - 2, "skipped": 2}), run.text
    assert run.outcomes["a", "long_context"] == "not_measured"
    assert "training context is unknown" in run.junit["a", "long_context"].find("skipped").get("message")


def test_no_room_beyond_the_training_context(gate):
    """Sequences no longer than the training context cannot say anything of what lies beyond it."""
    run = gate("--sae-context=16")
    assert run.exit_code == 0, run.text
    assert run.results[SOUND, "long_context"].outcome == "not_measured"
    assert "no room beyond the training context" in run.results[SOUND, "long_context"].reason


def test_all_checks_skipped_is_not_a_pass(tmp_path, gate):
    """An SAE of which nothing was measured leaves the run red."""
    saes = write_sae(tmp_path / "saes" / "a", SOUND, metadata={"context_size": None}).parent
    run = gate("-k", "long_context or lambada", saes=saes, lambada=False)
    assert (run.exit_code, run.counts) == (1, {"skipped": 2, "deselected": N_CHECKS - 2}), run.text
    assert "got no verdict: this is not a pass" in run.text


def test_one_sae_without_a_verdict_is_not_a_pass(tmp_path, tiny, gate):
    """One SAE without any verdict is named and the run is red, although the others passed."""
    saes = copy_saes(tiny, tmp_path / "saes")
    shutil.rmtree(saes / BROKEN)
    write_sae(saes / BROKEN, BROKEN, metadata={"context_size": None})
    run = gate("-k", "long_context", saes=saes)
    assert (run.exit_code, run.counts) == (1, {"passed": 2, "skipped": 1, "deselected": N_CELLS - 3}), run.text
    assert f"no verdict for {BROKEN}" in run.text


def test_lambada_alone_with_nothing_measurable(gate):
    """-k lambada without a Lambada file is not a pass."""
    run = gate("-k", "lambada", lambada=False)
    assert (run.exit_code, run.counts) == (1, {"skipped": 3, "deselected": N_CELLS - 3}), run.text


def test_lambada_without_a_file(gate):
    """Without --sae-lambada the check is skipped with the reason, and the run is judged on the others."""
    run = gate("-rs", lambada=False)
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS - 3, "skipped": 3}), run.text
    assert run.results[SOUND, "lambada"].reason == "no Lambada passages were given (--sae-lambada)"
    assert "no Lambada passages were given" in run.text


def test_cbt_without_a_file(tiny, gate):
    """Without --sae-cbt that check is skipped with the reason, and the run is judged on the others."""
    run = gate("-rs", options=[asked for asked in tiny.args() if not asked.startswith("--sae-cbt")])
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS - 3, "skipped": 3}), run.text
    assert run.results[SOUND, "cbt"].reason == "no Children's Book Test was given (--sae-cbt)"


def test_texts_that_are_switched_off(gate):
    """`none` skips the checks of a text that is there, with this reason, and the run is judged on the others."""
    run = gate("-rs", "--sae-lambada=none", "--sae-cbt=none")
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS - 6, "skipped": 6}), run.text
    for check in ("lambada", "cbt"):
        result = run.results[SOUND, check]
        assert (result.outcome, result.reason) == ("not_measured", f"switched off (--sae-{check}=none)")


def test_lambada_of_a_model_that_knows_no_answer(tmp_path, gate):
    """Where the model answers nothing a drop cannot be judged: skipped, with the clean accuracy in the reason."""
    path = tmp_path / "unanswerable.jsonl"
    path.write_text("".join(json.dumps({"text": f"bad tell {i * 'dint '}zzz"}) + "\n" for i in range(12)))
    run = gate(f"--sae-lambada={path}", lambada=False)
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS - 3, "skipped": 3}), run.text
    result = run.results[SOUND, "lambada"]
    assert "clean accuracy too low" in result.reason
    assert {e.measure: e.value for e in result.estimates}["accuracy_clean"] == 0


@pytest.mark.parametrize("option", ["corpus", "lambada", "cbt"])
def test_a_file_with_which_nothing_can_pass_is_refused(tiny, gate, tmp_path, option):
    """Before anything is measured, with the number that it takes."""
    rows = getattr(tiny, option).read_text().splitlines()[:7]
    (tmp_path / "few.jsonl").write_text("\n".join(rows))
    run = gate(f"--sae-{option}={tmp_path / 'few.jsonl'}")
    assert run.exit_code == 4
    assert "too little for any check to pass" in run.text
    assert not run.record_path.exists()


def _few_tokens(tiny, tmp_path, n):
    """The first *n* texts as rows of token ids, of which each may hold several documents."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.model)
    texts = [json.loads(line)["text"] for line in tiny.corpus.read_text().splitlines()[:n]]
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"input_ids": tokenizer(text)["input_ids"]}) + "\n" for text in texts))
    return f"--sae-corpus={path}"


def test_too_little_text_is_said_first_and_inconclusive(tiny, gate, tmp_path):
    """How many documents rows of ids hold is known when they are read: that is said before the first pass."""
    run = gate(_few_tokens(tiny, tmp_path, 7), "-k", "ce_loss")
    assert (run.exit_code, run.outcomes[SOUND, "ce_loss"]) == (1, "inconclusive"), run.text
    assert "fewer than 8" in run.junit[SOUND, "ce_loss"].find("failure").get("message")
    reading, told, first_test = map(run.text.index, ("reading the text", "too little for any check to pass", "\nF"))
    assert reading < told < first_test


def test_a_smoke_run_with_an_open_check_is_not_decided(tiny, gate, tmp_path):
    """Its exit status may be 0, and no reader takes it for a pass."""
    saes = copy_saes(tiny, tmp_path / "saes")
    weights = {**identity_weights(D_MODEL), "W_dec": 0.9 * identity_weights(D_MODEL)["W_dec"]}
    shutil.rmtree(saes / SOUND)
    write_sae(saes / SOUND, SOUND, weights=weights)
    args = ("--sae-profile=smoke", "-k", "ce_loss or sparsity")
    value = gate(*args, saes=saes).results[SOUND, "ce_loss"].judged.value
    limits = tmp_path / "limits.toml"
    limits.write_text(
        f'schema = 1\n[default.ce_loss]\nmeasure = "ce_increase"\nmax = {value}\nunit = "nats/token"\nsource = "it"\n'
        '[default.sparsity]\nmeasure = "explained_variance"\nmin = 0.1\nunit = "fraction"\nsource = "it"\n'
    )
    run = gate(*args, f"--sae-thresholds={limits}", saes=saes)
    assert run.outcomes[SOUND, "ce_loss"] == "inconclusive", run.text
    assert (run.exit_code, run.record.verdict, run.junit_verdict) == (0, "not_decided", "not_decided"), run.text
    assert not run.record.passed


def test_a_smoke_run_that_decides_nothing_is_not_a_pass(tiny, gate, tmp_path):
    """What is inconclusive only warns there, but an SAE with nothing else was not judged."""
    run = gate("--sae-profile=smoke", _few_tokens(tiny, tmp_path, 7), "-k", "ce_loss")
    assert set(run.outcomes.values()) >= {"inconclusive"}, run.text
    assert (run.exit_code, run.counts) == (1, {"undecided": 3, "deselected": N_CELLS - 3}), run.text
    assert run.lines[-2] == "tiny-saes: NOT DECIDED   3 of 3 SAEs   (3 undecided)"
    assert "got no verdict: this is not a pass" in run.text


def _cut_model(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _model_without_a_block(model):
    from safetensors.torch import load_file, save_file

    path = model / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if ".h.1." not in name}
    save_file(kept, path, metadata={"format": "pt"})


def _model_of_unknown_type(model):
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "no-such-model"}))


def _model_without_tokenizer(model):
    for path in model.glob("*token*"):
        path.unlink()


@pytest.mark.parametrize(
    "damage", [_cut_model, _model_without_a_block, _model_of_unknown_type, _model_without_tokenizer]
)
def test_broken_model_is_an_error_of_every_check(tmp_path, tiny, gate, damage):
    """A broken model is an error of every check; missing weights are never filled at random."""
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    damage(model)
    run = gate(f"--sae-model={model}")
    assert (run.exit_code, run.counts) == (1, {"errors": N_CELLS}), run.text
    assert set(run.outcomes.values()) == {"error"}
    assert str(model) in run.results[SOUND, "ce_loss"].reason


def test_nan_model_is_not_a_pass(tmp_path, tiny, gate):
    """A model that answers NaN is never averaged into a pass."""
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    path = model / "model.safetensors"
    weights = load_file(path)
    weights["transformer.ln_f.weight"] *= float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    run = gate(f"--sae-model={model}")
    assert run.exit_code == 1
    assert "passed" not in {run.outcomes[cell] for cell in run.outcomes if cell[1] != "sparsity"}


def test_the_ablation_is_measured_where_it_is_asked(tmp_path, gate):
    """By the profile full or by a limit on it."""
    limits = tmp_path / "limits.toml"
    limits.write_text(
        'schema = 1\n[default.ce_loss]\nmeasure = "ce_recovered"\nunit = "fraction"\nmin = 0.9\nsource = "a test"\n',
        encoding="utf-8",
    )
    found = [
        {e.measure: e for e in gate(*how, "-k", "ce_loss").results[SOUND, "ce_loss"].estimates}
        for how in ((), ("--sae-profile=full",), (f"--sae-thresholds={limits}",))
    ]
    assert [sorted(set(checks.CE_LOSS.ablated) & set(of)) for of in found] == [
        [],
        *[["ce_ablated", "ce_recovered"]] * 2,
    ]
    assert found[1]["ce_recovered"].value == found[2]["ce_recovered"].value == pytest.approx(1, abs=1e-6)


def test_own_thresholds_decide(tmp_path, gate):
    """A limit of the user's own turns a green SAE red, and the message names the user's file."""
    limits = tmp_path / "own.toml"
    limits.write_text(
        'schema = 1\n[default.sparsity]\nmeasure = "l0"\nmax = 3\nunit = "latents/token"\nsource = "strict house"\n'
    )
    run = gate(f"--sae-thresholds={limits}", "-k", "sparsity")
    assert (run.exit_code, run.counts["failed"]) == (1, 3), run.text
    message = run.junit[SOUND, "sparsity"].find("failure").get("message")
    assert message.startswith("Failed: FAILED: sparsity 16 > 3 latents/token")
    assert "own.toml [default.sparsity]" in run.text
    assert properties_of(run.junit[SOUND, "sparsity"])["limit.max"] == "3.0"
