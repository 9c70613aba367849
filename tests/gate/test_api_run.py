"""The Python API: the verdicts of pytest, and objects in memory that stay as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_release import HOOKS, write_zero_sae

import sae_checks
from sae_checks.release.converters import quiet

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def held(tiny):
    """(SAEs, model, tokenizer, texts) of the tiny release, as a training loop holds them."""
    import sae_lens
    import transformers

    with quiet():  # SAE Lens warns of every SAE that names keyword arguments of its model
        saes = {hook: sae_lens.SAE.load_from_disk(tiny.saes / hook) for hook in HOOKS}
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.model)
    return saes, model, tokenizer, [json.loads(line)["text"] for line in tiny.corpus.read_text().splitlines()]


def judged(tiny, release=None, **more):
    given = {"model": tiny.model, "corpus": tiny.corpus, "lambada": tiny.lambada, "cbt": tiny.cbt}
    return sae_checks.judge(
        tiny.saes if release is None else release, **{**given, "study_sequences": 0, "progress": False, **more}
    )


def test_the_verdicts_are_those_of_pytest(gate, tiny, tmp_path):
    """Every result, number by number, of sound SAEs and of a broken one, and the verdict on the run."""
    saes = tmp_path / "tiny-saes"
    write_zero_sae(saes / HOOKS[0], HOOKS[0])
    for of, is_pass in ((None, True), (saes, False)):
        run, out = gate(saes=of), tmp_path / f"{is_pass}"
        record = judged(tiny, of, out=out)
        assert {(r.sae_id, r.check): r for r in sae_checks.read_record(out / "record.json").results} == run.results
        assert (record.passed, run.exit_code == 0) == (is_pass, is_pass)


def test_the_verdicts_on_the_demo_are_those_of_pytest(gate, tmp_path):
    """Every check, studies and stacks too, on a short plan."""
    short = ("--sae-release=demo", "--sae-sequences=16", "--sae-study-sequences=16")
    run = gate(options=short)
    record = sae_checks.judge("demo", sequences=16, study_sequences=16, progress=False, out=tmp_path)
    written = sae_checks.read_record(tmp_path / "record.json").results
    assert {(r.sae_id, r.check): r for r in written} == run.results
    assert record.passed == (run.exit_code == 0)
    assert {"stacked", "propagation", "random_error", "own_layer"} <= {r.check for r in written}


def test_what_is_in_memory_is_judged_as_what_is_on_disk(tiny, held):
    """The same numbers; and only the checks that were asked for."""
    saes, model, tokenizer, texts = held
    checks = ["ce_loss", "sparsity"]
    found = judged(tiny, saes, model=model, tokenizer=tokenizer, corpus=texts, checks=checks)
    expected = judged(tiny, checks=checks)
    for one, other in zip(found.results, expected.results, strict=True):
        assert (one.sae_id, one.check, one.outcome, one.estimates) == (
            other.sae_id,
            other.check,
            other.outcome,
            other.estimates,
        )
    assert found.passed
    assert found.verdict == "passed"
    frame = found.to_frame()
    assert list(frame["value"]) == [result.judged.value for result in found.results if result.check in checks]
    assert list(frame["check"].unique()) == checks
    assert set(frame["sae"]) == set(HOOKS)
    assert dict(found.options)["corpus"] == "in memory"


def test_the_callers_objects_stay_as_they_are(tiny, held):
    """Mode, gradients, hooks and weights; a training loop goes on where it was."""
    saes, model, tokenizer, texts = held
    for module in (model, *saes.values()):
        module.train().requires_grad_(True)
    types = [type(module) for module in model.modules()]
    before = {name: weight.clone() for name, weight in saes[HOOKS[0]].state_dict().items()}
    judged(tiny, saes, model=model, tokenizer=tokenizer, corpus=texts, checks=["ce_loss"])
    for module in (model, *saes.values()):
        assert all(part.training for part in module.modules())
        assert all(parameter.requires_grad for parameter in module.parameters())
    assert [type(module) for module in model.modules()] == types
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(weight.equal(before[name]) for name, weight in saes[HOOKS[0]].state_dict().items())


def test_a_broken_sae_in_memory_is_red(tiny, held):
    """A decoder of zeros, under the name of its hook alone."""
    import sae_lens

    _, model, tokenizer, texts = held
    with quiet():
        sae = sae_lens.SAE.load_from_disk(tiny.saes / HOOKS[1])
    sae.W_dec.data.zero_()
    sae.cfg.metadata.hook_name = None
    found = judged(
        tiny, {HOOKS[1]: sae}, model=model, tokenizer=tokenizer, corpus=texts, checks=["ce_loss", "sparsity"]
    )
    assert not found.passed
    assert {r.outcome for r in found.results if r.check in ("ce_loss", "sparsity")} == {"failed"}


def test_a_training_sae_is_judged_as_its_inference_sae(tiny, held):
    """A TopK SAE of the trainer, and what the trainer would save of it: the same numbers."""
    import sae_lens
    import torch

    _, model, tokenizer, texts = held
    torch.manual_seed(0)
    cfg = sae_lens.TopKTrainingSAEConfig(d_in=16, d_sae=64, k=8)
    training = sae_lens.TrainingSAE.get_sae_class_for_architecture("topk")(cfg)
    training.cfg.metadata.hook_name, training.cfg.metadata.prepend_bos = HOOKS[0], True
    training.cfg.metadata.context_size = 16
    how = {"model": model, "tokenizer": tokenizer, "corpus": texts, "checks": ["ce_loss", "sparsity"]}
    found = judged(tiny, {HOOKS[0]: training}, **how)
    weights = training.state_dict()
    training.process_state_dict_for_saving_inference(weights)
    saved = sae_lens.SAE.from_dict(training.cfg.get_inference_sae_cfg_dict())
    saved.process_state_dict_for_loading(weights)
    saved.load_state_dict(weights)
    expected = judged(tiny, {HOOKS[0]: saved}, **how)
    assert [r.estimates for r in found.results] == [r.estimates for r in expected.results]
    assert not found.passed


@pytest.mark.parametrize(
    ("bad", "kind", "said"),
    [
        ({"chekcs": ["ce_loss"]}, TypeError, "did you mean 'checks'"),
        ({"checks": ["ce_los"]}, ValueError, "did you mean 'ce_loss'"),
        ({"record": "r.json"}, TypeError, "did you mean 'out'"),
        ({"checks": "ce_loss"}, TypeError, r"checks=\['ce_loss'\]"),
        ({"tokenizer": object()}, TypeError, "tokenizer="),
        ({"model": object()}, TypeError, "model= is object"),
        ({"name": "two\nlines"}, ValueError, "--sae-name"),
        ({"checks": 5}, TypeError, "checks= is int"),
        ({"corpus": [1]}, TypeError, "corpus= holds int"),
        ({"corpus": 5}, TypeError, "corpus= is int"),
        ({"corpus": []}, ValueError, "corpus= is empty"),
        ({"corpus": [{"text": object()}]}, TypeError, "entry 0 of corpus="),
        ({"lambada": ["two words", {"x": 1}]}, ValueError, "entry 1 of lambada="),
        ({"cbt": ["no query"]}, ValueError, "entry 0 of cbt="),
        ({"id": 5}, TypeError, "id= is int"),
        ({"progress": "no"}, TypeError, "progress= is str"),
        ({"release": {}}, ValueError, "release= holds no SAE"),
        ({"release": 5}, TypeError, "release= is int"),
        ({"allow_pickle": "yes"}, TypeError, "allow_pickle="),
        ({"sequences": "many"}, ValueError, "--sae-sequences"),
    ],
)
def test_a_bad_argument_says_which(tiny, bad, kind, said):
    """Bad arguments are refused before anything is measured."""
    with pytest.raises(kind, match=said):
        judged(tiny, **bad)


def test_what_is_no_sae_is_a_type_error(tiny):
    """A model without its tokenizer is refused."""
    with pytest.raises(TypeError, match="not an SAE of SAE Lens"):
        judged(tiny, {HOOKS[0]: object()})


def test_listing_and_reading(tiny, tmp_path):
    """SAEs by depth, and a record read back as it was written."""
    assert [sae.hook for sae in sae_checks.list_saes(tiny.saes)] == list(HOOKS)
    made = judged(tiny, checks=["sparsity"], name="my-saes", out=tmp_path)
    assert made.release.name == "my-saes"
    assert [r.estimates for r in sae_checks.read_record(tmp_path / "record.json").results] == [
        r.estimates for r in made.results
    ]


def test_a_bar_is_shown(tiny, capsys):
    """The bar is on stderr, and `progress=False` silences it."""
    judged(tiny, checks=["sparsity"])
    assert capsys.readouterr().err == ""
    judged(tiny, checks=["sparsity"], progress=True)
    assert "measuring text" in capsys.readouterr().err


def test_the_first_example_of_the_page_runs(capsys):
    """The example of the page runs as it is written."""
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    exec(compile(example, "docs/api.md", "exec"), {})
    assert capsys.readouterr().out.startswith("passed\n")


def test_importing_costs_nothing():
    """Importing the package imports no torch and no NumPy, and lists the public names."""
    script = (
        "import sys, sae_checks\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sae_lens', 'transformers', 'pytest'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
        "assert {*sae_checks.__all__} <= {*dir(sae_checks)}\n"
        "assert all(getattr(sae_checks, name) is not None for name in sae_checks.__all__)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
