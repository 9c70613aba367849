"""
A release no one here wrote: stories260K, a Llama-architecture model, and six SAEs trained with SAE Lens.

The data is not part of the project. `SAE_CHECKS_DATA` names the folder that holds it; without it these are skipped.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import LoopbackHub, environment
from stand_in import choices, files_in, parquet

from sae_checks import checks
from sae_checks.plan.options import Options
from sae_checks.record import record

pytestmark = pytest.mark.skipif(
    "SAE_CHECKS_DATA" not in os.environ, reason="SAE_CHECKS_DATA names no folder of real releases"
)

DATA = Path(os.environ.get("SAE_CHECKS_DATA", ""))


def options(**kwargs):
    return Options(
        **{
            "release": str(DATA / "stories260K-res-saes"),
            "model": str(DATA / "stories260K"),
            "corpus": str(DATA / "stories/eval.jsonl"),
            "lambada": str(DATA / "stories/cloze.jsonl"),
            "n_sequences": 32,
            "device": "cpu",
            **kwargs,
        }
    )


CHECKS = ("ce_loss", "lambada", "cbt", "long_context", "usable_context", "sparsity")


def judged(asked_options, names=CHECKS):
    from judged import judge

    from sae_checks.measuring.local import LocalExecutor
    from sae_checks.run.settle import settle

    asked = settle(asked_options)
    executor = LocalExecutor(asked.plan)
    sae_ids = asked.plan.release.sae_ids
    cells = [(s, name) for s in sae_ids for name in names]
    return {(s, name): judge(executor, asked, s, checks.named(name), cells) for s, name in cells}


def test_six_saes_times_six_checks_without_an_error():
    """Every check has a verdict for every SAE, but for the choices that were not given; the numbers are those known."""
    results = judged(options())
    assert len(results) == 36
    for (_, name), result in results.items():
        assert result.outcome in ({"not_measured"} if name == "cbt" else {"passed", "failed", "inconclusive"}), (
            result.reason
        )
        values = {e.measure: e.value for e in result.estimates}
        if name == "ce_loss":
            assert 1.0 < values["ce_clean"] < 1.5
            assert 0.03 < values["ce_increase"] < 0.17
        if name == "lambada":
            assert 0.6 < values["accuracy_clean"] < 0.9


def test_the_real_lambada_is_beyond_this_model():
    """A model that answers almost nothing is not measured, with the reason: its SAEs must not pass for it."""
    results = judged(
        options(lambada=str(DATA / "lambada_openai/test.jsonl"), sae_ids=("blocks.0.*",)), names=("lambada",)
    )
    (result,) = results.values()
    assert result.outcome == "not_measured"
    assert "clean accuracy too low" in result.reason


def test_lambada_with_bos_agrees_with_lm_evaluation_harness(tmp_path, monkeypatch):
    """stories260K's tokenizer prepends BOS for lm-evaluation-harness too: accuracy and perplexity are the same."""
    import torch
    from peers import lm_eval_lambada

    from sae_checks.corpora import files
    from sae_checks.model import hugging_face

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    passages = files.read_passages(DATA / "stories/cloze.jsonl")[:120]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": passage}) + "\n" for passage in passages))
    (result,) = judged(options(lambada=str(path), sae_ids=("blocks.0.*",)), names=("lambada",)).values()
    ours = {e.measure: e.value for e in result.estimates}
    model = hugging_face.load(DATA / "stories260K", dtype="float32", device=torch.device("cpu"))
    accuracy, perplexity = lm_eval_lambada(model, path)
    assert ours["accuracy_clean"] == pytest.approx(accuracy, abs=1e-9)
    assert ours["perplexity_clean"] == pytest.approx(perplexity, rel=1e-4)


def test_wikitext_is_read_as_paragraphs():
    """A .txt corpus is cut at blank lines, and another kind of text than the model's own costs it more."""
    results = judged(options(corpus=str(DATA / "wikitext2/test.txt"), sae_ids=("blocks.1.*",)), names=("ce_loss",))
    (result,) = results.values()
    values = {e.measure: e.value for e in result.estimates}
    assert values["ce_clean"] > 2
    assert values["ce_increase"] > 0


CARD = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test*\n---\n"


@pytest.mark.usefixtures("one_thread")  # as the subprocess has: with more of them sums are rounded otherwise
def test_the_same_release_on_a_hub_gives_the_same_numbers(tmp_path):
    """SAEs, model, text and passages as repositories, fetched by commit: what is scored and found is the same."""
    n, asked_ids = 24, ("blocks.0.hook_resid_pre", "blocks.4.hook_resid_post")
    lines = {}
    for name in ("eval", "cloze"):
        with (DATA / f"stories/{name}.jsonl").open() as file:
            lines[name] = list(itertools.islice(file, n))
        (tmp_path / f"{name}.jsonl").write_text("".join(lines[name]))
    with LoopbackHub() as hub:
        passages = parquet(text=[json.loads(line)["text"] for line in lines["cloze"]])
        hub.dataset("cam-cst/cbt", choices())  # the default of every release of the Hub
        repos = {
            "release": hub.model("org/stories260K-res-saes", files_in(DATA / "stories260K-res-saes")),
            "model": hub.model("org/stories260K", files_in(DATA / "stories260K")),
            "corpus": hub.dataset(
                "org/stories", {"README.md": CARD, "data/test.jsonl": "".join(lines["eval"]).encode()}
            ),
            "lambada": hub.dataset("org/cloze", {"README.md": CARD, "data/test-00000-of-00001.parquet": passages}),
        }
        asked = [f"--sae-{option}={repo.repo_id}" for option, repo in repos.items()]
        asked[2] += "::test"  # text is the split train of a dataset, unless it is told
        asked += [f"--sae-id={sae_id}" for sae_id in asked_ids] + [f"--sae-sequences={n}"]
        asked += ["--sae-study-sequences=0"]
        wanted = tmp_path / "record.json"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--sae-device=cpu", "-k", "not cbt", f"--sae-out={tmp_path}", *asked],
            cwd=Path(__file__).parents[2],
            env={**environment(hub, tmp_path / "home"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert wanted.exists(), done.stdout + done.stderr
        assert hub.unserved == []
    folder = options(
        corpus=str(tmp_path / "eval.jsonl"),
        lambada=str(tmp_path / "cloze.jsonl"),
        n_sequences=n,
        sae_ids=asked_ids,
    )
    of_folder = judged(folder, [name for name in CHECKS if name != "cbt"])
    found = record.read(wanted)
    assert found.release.revision == repos["release"].sha
    of_hub = {(r.sae_id, r.check): r for r in found.results if r.check != "cbt"}
    assert of_hub.keys() == of_folder.keys()
    for cell, here in of_folder.items():
        there = of_hub[cell]
        judged_by_their_own = {here.outcome, there.outcome}  # the Hub's name of the release has other limits
        assert judged_by_their_own <= {"passed", "failed", "inconclusive"}, (there.reason, here.reason)
        assert there.provenance.corpus.fingerprint == here.provenance.corpus.fingerprint
        assert there.provenance.sae.weights == here.provenance.sae.weights
        assert there.provenance.model.weights == here.provenance.model.weights
        assert there.provenance.model.source == f"org/stories260K@{repos['model'].sha}"
        kind = "lambada" if cell[1] == "lambada" else "corpus"
        assert repos[kind].sha in there.provenance.corpus.source
        for ours, theirs in zip(here.estimates, there.estimates, strict=True):
            assert (ours.measure, ours.n) == (theirs.measure, theirs.n)
            assert theirs.value == pytest.approx(ours.value, abs=1e-9)
