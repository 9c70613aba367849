"""Options and a release -> one plan: which model each SAE is measured in, and how long sequences are."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders import write_sae

from sae_checks import errors
from sae_checks.plan import corpus_source, named_model, plan
from sae_checks.plan.options import Options
from sae_checks.release import hub, release

CONTEXTS = {"gpt2": 1024, "EleutherAI/pythia-70m-deduped": 2048, "org/short": 64}


@pytest.fixture
def pinned(monkeypatch, tmp_path):
    """A Hub that knows the models of CONTEXTS; the list of what was pinned there, as (name, revision)."""
    asked = []

    def pin(repo_id, *, kind="model", revision=None):
        if repo_id not in CONTEXTS:
            raise errors.hub_no_repo(repo_id)
        asked.append((repo_id, revision))
        files = tuple(hub.HubFile(path=p, n_bytes=1, blob=None) for p in ("config.json", "model.safetensors"))
        return hub.HubRepo(repo_id=repo_id, kind=kind, commit=revision or "main", files=files, offline=False)

    def fetch(repo, path):
        found = tmp_path / "fetched" / repo.repo_id / path
        found.parent.mkdir(parents=True, exist_ok=True)
        found.write_text(json.dumps({"max_position_embeddings": CONTEXTS[repo.repo_id]}))
        return found

    monkeypatch.setattr(hub, "pin", pin)
    monkeypatch.setattr(hub, "fetch", fetch)
    return asked


def planned(tmp_path, *named, model=None, registered=None, **options):
    """The plan of a release whose SAEs name the models *named*, each a name or (name, revision)."""
    for i, each in enumerate(named):
        name, revision = each if isinstance(each, tuple) else (each, None)
        kwargs = {} if revision is None else {"revision": revision}
        write_sae(tmp_path / "saes" / str(i), metadata={"model_name": name, "model_from_pretrained_kwargs": kwargs})
    found = replace(release.resolve(str(tmp_path / "saes")), model=registered)
    return plan.make(Options(release="x", model=model, corpus=str(tmp_path / "t.txt"), **options), found)


def sources(settled):
    return [settled.model_of(sae).name for sae in settled.release.saes]


def test_one_model_under_two_names_is_one(pinned, tmp_path):
    """TransformerLens's alias and the Hub's name are the same model: pinned, and measured, as one."""
    settled = planned(tmp_path, "gpt2-small", "gpt2")
    assert settled.models[0].source.name == "gpt2@main"
    assert settled.models[0].sae_ids == ("0", "1")
    assert (settled.n_context_tokens, settled.n_model_context_tokens) == (1024, 1024)
    assert set(pinned) == {("gpt2", None)}


def test_saes_of_several_models_each_get_their_own(pinned, tmp_path):
    """Each SAE is measured in the model that it names; the smallest context holds for all of them."""
    settled = planned(tmp_path, "gpt2", "pythia-70m-deduped", "gpt2", "org/short")
    assert sources(settled) == ["gpt2@main", "EleutherAI/pythia-70m-deduped@main", "gpt2@main", "org/short@main"]
    assert [model.sae_ids for model in settled.models] == [("0", "2"), ("1",), ("3",)]
    assert (settled.n_context_tokens, settled.n_model_context_tokens) == (64, 64)
    with pytest.raises(errors.UsageError, match="at most 64 tokens"):
        planned(tmp_path, n_context_tokens=65)


def test_a_revision_of_a_model_is_another_model(pinned, tmp_path):
    """An SAE trained on step 1000 is measured in step 1000, beside one of main."""
    settled = planned(tmp_path, "gpt2", ("gpt2", "step1000"))
    assert sources(settled) == ["gpt2@main", "gpt2@step1000"]
    assert pinned == [("gpt2", None), ("gpt2", "step1000")]


def test_the_registry_helps_out_where_an_sae_names_no_model_of_the_hub(pinned, tmp_path):
    """Some converters can only guess the name; it is believed where the Hub can have it, and else the registry is."""
    settled = planned(tmp_path, "", "0123456789abcdef", "org/short", registered="gpt2-small")
    assert sources(settled) == ["gpt2@main", "gpt2@main", "org/short@main"]


def test_the_model_that_was_asked_for_is_taken_for_all(pinned, tmp_path):
    """`--sae-model` overrides the names and revisions of every SAE."""
    settled = planned(tmp_path, ("gpt2", "step1"), "", "pythia-70m-deduped", model="org/short@v2")
    assert sources(settled) == ["org/short@v2"] * 3
    assert pinned == [("org/short", "v2")]


def test_a_folder_has_no_revision(pinned, tmp_path):
    """A revision that could not be honoured is an error, not ignored."""
    (tmp_path / "model").mkdir()
    with pytest.raises(errors.UsageError, match="no revision 'step1'"):
        planned(tmp_path, (str(tmp_path / "model"), "step1"))


@pytest.mark.parametrize("name", ["", "no such model"])
def test_without_a_model_that_can_be_found_one_is_needed(pinned, tmp_path, name):
    """An SAE whose model nobody knows stops the run before it starts, and says what to give."""
    with pytest.raises(errors.UsageError, match="needs --sae-model"):
        planned(tmp_path, "gpt2", name)


@pytest.fixture
def two(pinned, tmp_path):
    """A folder of two SAEs; the configuration of the first says a training context of 32 tokens."""
    write_sae(tmp_path / "saes/0", metadata={"model_name": "gpt2", "context_size": 32})
    write_sae(tmp_path / "saes/1", metadata={"model_name": "gpt2", "context_size": None})
    return tmp_path


def test_a_training_context_where_the_configuration_says_none(two):
    """It is that of the option, and a configuration that says the same does not mind."""
    assert [sae.n_training_context_tokens for sae in planned(two).release.saes] == [32, None]
    assert [sae.n_training_context_tokens for sae in planned(two, n_train_context_tokens=32).release.saes] == [32, 32]


def test_a_training_context_overrides_no_configuration(two):
    """Another number than the configuration's is refused, with the SAE that has it."""
    with pytest.raises(errors.UsageError, match="--sae-train-context=64") as caught:
        planned(two, n_train_context_tokens=64)
    assert "32 tokens in the configuration of 0\n" in str(caught.value)


def of_hub(tmp_path, *texts, **options):
    """The plan of a release of the Hub whose SAEs name these training texts."""
    for i, text in enumerate(texts):
        write_sae(tmp_path / "saes" / str(i), metadata={"model_name": "gpt2", "dataset_path": text})
    found = replace(release.resolve(str(tmp_path / "saes")), revision="a" * 40)
    return plan.make(Options(release="org/saes", **options), found)


def test_a_text_that_only_the_release_names_is_no_default(pinned, tmp_path):
    """Whoever sits the exam does not choose it; nothing is asked of the Hub, and what SAE Lens knows is a default."""
    with pytest.raises(errors.UsageError, match="needs --sae-corpus") as caught:
        of_hub(tmp_path / "own", "org/easy")
    assert "got:      org/easy\n" in str(caught.value)
    assert of_hub(tmp_path / "own", "org/easy", corpus="org/easy").corpus.name == "org/easy"
    for known in corpus_source.KNOWN_TEXTS:
        settled = of_hub(tmp_path / known, known)
        assert (settled.corpus.name, settled.corpus_reason) == (known, "the SAEs' own training text")
    settled = of_hub(tmp_path / "two", "org/easy", "org/easier")
    assert settled.corpus.name.startswith("Skylion007/openwebtext@")
    assert {name for name, _ in pinned} == {"gpt2"}


def test_the_known_texts_are_those_that_sae_lens_names():
    """In the registry's corrections and in the converters of the installed version."""
    folder = Path(importlib.util.find_spec("sae_lens").origin).parent
    named = set(re.findall(r"^ +dataset_path: (\S+)", (folder / "pretrained_saes.yaml").read_text(), re.MULTILINE))
    loaders = (folder / "loading/pretrained_sae_loaders.py").read_text()
    assert named | set(re.findall(r'"dataset_path": "(\S+)"', loaders)) == corpus_source.KNOWN_TEXTS


@pytest.mark.parametrize("kind", ["lambada", "cbt"])
def test_a_text_is_switched_off(pinned, tmp_path, kind):
    """`none` switches off what the release brings, and the default of a release on the Hub."""
    write_sae(tmp_path / "saes/0", metadata={"model_name": "gpt2"})
    found = replace(release.resolve(str(tmp_path / "saes")), **{kind: tmp_path / "shipped.jsonl"}, revision="a" * 40)
    corpus = str(tmp_path / "t.txt")
    off = {"lambada": "none", "cbt": "none"}
    assert getattr(plan.make(Options(release="x", corpus=corpus, **{**off, kind: None}), found), kind) is not None
    assert getattr(plan.make(Options(release="x", corpus=corpus, **off), found), kind) is None


@pytest.mark.parametrize(
    ("named", "folder", "config", "is_told"),
    [
        ("gpt2", "gpt2", {}, False),
        ("gpt2-small", "gpt2", {}, False),
        ("openai-community/gpt2", "GPT2", {}, False),
        ("gpt2", "model", {"_name_or_path": "openai-community/gpt2"}, False),
        ("gpt2", "model", {}, True),
        ("gpt2-medium", "gpt2", {}, True),
    ],
)
def test_a_model_that_is_not_known_to_be_the_named_one_is_told(tmp_path, named, folder, config, is_told):
    """By the name of the folder or in its configuration, and whatever alias is used."""
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "config.json").write_text(json.dumps({"n_ctx": 64, **config}))
    (tmp_path / folder / "model.safetensors").write_bytes(b"")
    found = list(named_model.warnings(planned(tmp_path, named, named, model=str(tmp_path / folder))))
    assert [text.startswith(f"2 SAE(s) name the model {named}; ") for text in found] == [True] * is_told


def test_the_model_that_an_sae_names_is_not_told(pinned, tmp_path):
    """Neither is the one that the registry names for it."""
    assert list(named_model.warnings(planned(tmp_path, "gpt2-small", "org/short"))) == []
    assert pinned
