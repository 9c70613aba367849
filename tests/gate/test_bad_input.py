"""Wrong options end the run before it starts: exit code 4, a message, and no files."""

import json
import shutil

import pytest
from gate_run import run_apart
from tiny_release import HOOKS

pytest_plugins = ["pytester"]

LIMIT = '[default.sparsity]\nmeasure = "l0"\nmax = 3\nunit = "latents/token"\nsource = "here"\n'


def assert_refused(run, *said):
    """Exit code 4, the four parts of a message, no files, no traceback."""
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR, run.text
    for part in (*said, "  expected: ", "  got:      ", "  try:      "):
        assert part in run.text
    assert "Traceback" not in run.text
    assert "INTERNALERROR" not in run.text
    assert not run.record_path.exists()
    assert not run.junit_path.exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--sae-id=no.such.*", "matches no SAE of the release"),
        ("--sae-context=33", "--sae-context=33 is longer than the model's context"),
        ("--sae-context=many", "a whole number, at least 2"),
        ("--sae-train-context=5", "a configuration says another training context"),
        ("--sae-corpus=none", "every SAE is judged on text"),
        ("--sae-sequences=15", "at least 16: fewer decide nothing"),
        ("--sae-study-sequences=15", "at least 16: fewer decide nothing (0: none)"),
        ("--sae-device=tpu", "one of auto, cpu, cuda, mps"),
        ("--sae-device=mps", "torch finds no such device"),
        ("--sae-model=no/such/folder", "there is no such folder"),
        ("--sae-corpus=no/such.jsonl", "cannot be read"),
        ("--sae-lambada=passages.txt", "unknown form '.txt'"),
        ("--sae-cbt=no/such.jsonl", "cannot be read"),
        ("--sae-thresholds=no/such.toml", "cannot be read"),
        ("--sae-out=/dev/null/out", "--sae-out=/dev/null/out cannot be written"),
    ],
)
def test_value_that_cannot_be(gate, option, said):
    """What is wrong with an option is said by its name, when it is read or when the run is settled."""
    assert_refused(gate(option), said)


def test_device_that_is_not_there(gate):
    """An accelerator that torch does not find is refused, not replaced by the CPU."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert_refused(gate("--sae-device=cuda"), "torch finds no such device")


@pytest.mark.parametrize("flag", ["--sae-model", "--sae-corpus"])
def test_option_that_is_needed(tiny, gate, flag):
    """A folder of SAEs needs a model and a text; the message names the option."""
    options = [arg for arg in tiny.args() if not arg.startswith(flag)]
    assert_refused(gate(options=options), f"needs {flag}")


@pytest.mark.parametrize(
    "option",
    ["--sae-id=*", "--sae-out=out"],
)
def test_option_without_a_release(pytester, gate, option):
    """An --sae- option without --sae-release is a forgotten release, not a plain run of the user's tests."""
    pytester.makepyfile(test_own="def test_own():\n    assert True\n")
    assert_refused(gate(option, options=[]), "no release is given", option.partition("=")[0])


def test_unknown_release_names_the_nearest(tiny, gate):
    """A mistyped folder is answered with the folder that was meant."""
    run = gate(f"--sae-release={tiny.saes.parent / 'tinny-saes'}")
    assert_refused(run, "no SAE release", f"try:      --sae-release={tiny.saes}")


def test_unknown_name_names_the_embedded(gate):
    """A mistyped embedded release too."""
    assert_refused(gate("--sae-release=demo-brokn"), "try:      --sae-release=demo-broken")


def test_release_that_is_a_file(tiny, gate):
    """A file is no release."""
    assert_refused(gate(f"--sae-release={tiny.corpus}"), "no SAE release")


def test_empty_folder(tmp_path, gate):
    """A folder without SAEs is refused: no SAE is not a pass."""
    assert_refused(gate(saes=tmp_path), "no SAE in")


def test_sae_id_that_matches_nothing_lists_what_there_is(gate):
    """The message lists the SAEs of the release."""
    assert_refused(gate("--sae-id=blocks.9.*"), *HOOKS)


def test_malformed_thresholds(tmp_path, gate):
    """Limits that are not understood are refused: a typo never loosens the gate."""
    path = tmp_path / "own.toml"
    path.write_text(f"schema = 1\n{LIMIT}colour = 'red'\n")
    assert_refused(gate(f"--sae-thresholds={path}"), "unknown key 'colour'", str(path))


@pytest.mark.parametrize("flag", ["--sae-corpus", "--sae-lambada"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n\n  \n", "in it"),
        (b'{"text": "cat dog"}\n{"words": "cat dog"}\n', "line 2 is not"),
        (None, "cannot be read"),
    ],
)
def test_malformed_text_files(tmp_path, gate, flag, content, said):
    """A corpus that is not what it should be is refused before anything is loaded, by line."""
    path = tmp_path / "texts.jsonl"
    path.mkdir() if content is None else path.write_bytes(content)
    assert_refused(gate(f"{flag}={path}"), f"{flag} {path}", said)


def test_corpus_of_empty_texts(tmp_path, gate):
    """Documents without a word are no corpus."""
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": ""}\n{"text": "   "}\n')
    assert_refused(gate(f"--sae-corpus={path}"), "there is no text in it")


def test_passage_without_a_last_word(tmp_path, gate):
    """A Lambada passage of one word has no answer; the line is named."""
    path = tmp_path / "passages.jsonl"
    path.write_text('{"text": "cat dog"}\n{"text": "cat"}\n')
    assert_refused(gate(f"--sae-lambada={path}"), "line 2 has no last word")


def _no_config(model):
    (model / "config.json").unlink()


def _malformed_config(model):
    (model / "config.json").write_text("{")


def _config_of_another_kind(model):
    (model / "config.json").write_text("[]")


def _no_weights(model):
    (model / "model.safetensors").unlink()


def _only_a_pickle(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_config, "its config.json cannot be read"),
        (_malformed_config, "its config.json cannot be read"),
        (_config_of_another_kind, "its config.json cannot be read"),
        (_no_weights, "there is no .safetensors file in it"),
        (_only_a_pickle, "there is no .safetensors file in it"),
    ],
)
def test_model_folder_that_is_none(tmp_path, tiny, gate, damage, said):
    """A folder that cannot be a model is refused without loading anything."""
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    damage(model)
    assert_refused(gate(f"--sae-model={model}"), f"--sae-model {model}", said)


def test_hostile_values_reach_the_terminal_tamed(gate):
    """Control characters in what was asked do not reach the terminal."""
    run = gate("--sae-release=no\x1b[2Jsuch\x07release")
    assert_refused(run, "no\\x1b[2Jsuch\\x07release")
    assert "\x1b[2J" not in run.text


def test_bad_value_in_the_ini_file(pytester, gate):
    """The ini file is checked like the command line."""
    pytester.makeini("[pytest]\nsae_sequences = lots\n")
    assert_refused(gate(), "--sae-sequences cannot be 'lots'")


@pytest.mark.parametrize(
    ("key", "attempt"), [("sae_sequnces", "sae_sequences"), ("sae_zzz", "pytest --help"), ("sae_record", "sae_out=")]
)
@pytest.mark.parametrize("has_release", [True, False])
def test_a_misspelt_key_of_the_ini_file(pytester, gate, key, attempt, has_release):
    """pytest itself only warns; here it is refused with the nearest name, with a release or without."""
    pytester.makeini(f"[pytest]\n{key} = 3\n")
    assert_refused(gate(options=None if has_release else []), f"{key} is ", f"try:      {attempt}")


def test_keys_of_others(pytester, gate):
    """What another plugin registers is known, whatever it begins with; so are other unknown keys left to pytest."""
    pytester.makeconftest(
        "def pytest_addoption(parser):\n"
        "    parser.addini('sae_own', 'of the user')\n"
        "    parser.addoption('--sae-own')\n"
    )
    pytester.makepyfile(test_own="def test_own():\n    pass\n")
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nsae_own = 'a'\nother = 'b'\n")
    assert gate("--sae-own=1", options=[]).exit_code == 0


@pytest.mark.parametrize(
    ("option", "attempt"), [("--sae-sequnces=3", "--sae-sequences"), ("--sae-zzz", "pytest --help")]
)
def test_a_misspelt_option(gate, option, attempt):
    """argparse says that it does not know it; here the nearest is named."""
    flag = option.partition("=")[0]
    assert_refused(gate(option), f"{flag} is no option", f"try:      {attempt}")


def test_refused_the_same_under_xdist(gate):
    """Under -n the controller refuses before a worker starts."""
    run = gate("-n2", "--sae-context=33")
    assert_refused(run, "longer than the model's context")


def test_refused_without_torch(tmp_path, tiny):
    """A bad last option is refused in a second, since everything is checked before anything heavy is imported."""
    (tmp_path / "conftest.py").write_text(
        "import atexit, sys\n"
        "heavy = {'torch', 'sae_lens', 'transformers', 'numpy', 'scipy'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
    )
    bad = tmp_path / "passages.jsonl"
    bad.write_text(json.dumps({"text": "cat"}))
    run = run_apart(tmp_path, *tiny.args(), f"--sae-lambada={bad}", "-p", "no:jaxtyping")  # that one imports NumPy
    assert_refused(run, "line 1 has no last word")
    assert "heavy: []" in run.text
