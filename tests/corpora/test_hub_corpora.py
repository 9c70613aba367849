"""Datasets of a Hub on the loopback: the SAE's own training text, where it can be read, and rows of token ids."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in
from hub_server import LoopbackHub, Status, environment, here

from sae_checks import errors
from sae_checks.plan import corpus_source
from sae_checks.release import retries

ROOT = Path(__file__).parents[2]
CARD = b"---\nconfigs:\n- config_name: default\n  data_files: data/train-*\n---\n"


@pytest.fixture(scope="module")
def hub():
    with LoopbackHub() as served:
        files = {"a/train/0.parquet": stand_in.parquet(text=["one two"])}
        two = {**files, "b/train/0.parquet": stand_in.parquet(text=["one two"])}
        served.dataset("org/script", {"README.md": b"", "script.py": b"1/0"}).commit(
            files, branch="refs/convert/parquet"
        )
        served.dataset("org/two", {"README.md": b""}).commit(two, branch="refs/convert/parquet")
        three = {f"default/partial-train/{name}.parquet": stand_in.parquet(text=[name] * 3) for name in "pq"}
        served.dataset("org/three", {"README.md": b""}).commit(two | three, branch="refs/convert/parquet")
        served.dataset("org/files", {"README.md": CARD, "data/train-0.parquet": stand_in.parquet(text=["x"])})
        served.dataset("org/unread", {"README.md": b"", "unread.py": b"1/0", "data.parquet": b""})
        served.dataset("org/busy", {"README.md": b""})
        packed = [[0, 3 * i, 0, 3 * i + 1] for i in range(1, 40)]
        told = json.dumps({"tokenizer_name": "gpt2", "context_size": 4}).encode()
        served.dataset(
            "org/ids",
            {"README.md": CARD, "sae_lens.json": told, "data/train-0.parquet": stand_in.parquet(input_ids=packed)},
        )
        yield served


def test_the_training_text_is_used_where_it_can_be_read(hub, tmp_path, monkeypatch):
    """The Hub's conversion first, then files as they are; what cannot be read says why, and a busy Hub is an error."""
    monkeypatch.setattr(retries, "PAUSES_S", (0, 0))
    hub.faults["*/org/busy*"] = Status(503)
    names = ["script", "two", "three", "files", "unread", "none"]
    with here(hub, tmp_path / "cache"):
        found = [corpus_source.training_text(name) for name in [*(f"org/{name}" for name in names), "monology"]]
        with pytest.raises(errors.HubBusyError):
            corpus_source.training_text("org/busy")
    hub.faults.clear()
    script, two, three, files, unread, none, no_id = (
        [each.name, *each.parquet_files()] if isinstance(each, corpus_source.CorpusSource) else each.reason
        for each in found
    )
    converted = {name: hub.repos["dataset", f"org/{name}"].branches["refs/convert/parquet"] for name in names[:3]}
    assert script == [f"org/script@{converted['script']}:a:train", "a/train/0.parquet"]
    assert two.startswith("org/two has 2 configurations with a split train, none the default; org/two has no parquet")
    assert three == [
        f"org/three@{converted['three']}:default:train",
        "default/partial-train/p.parquet",
        "default/partial-train/q.parquet",
    ]
    assert files == [f"org/files@{hub.repos['dataset', 'org/files'].sha}:default:train"]
    assert unread.endswith("can be read without its script")
    assert "has no repository org/none" in none
    assert no_id == "'monology' is no dataset of the Hub"


def test_rows_of_a_dataset_keep_their_order_where_they_are_packed(hub, tmp_path):
    """Ids come in the file's order, more of them than of text, and what the dataset says of its tokenizer is read."""
    script = """
import json
from sae_checks.plan import corpus_source
from sae_checks.corpora import datasets, pretokenised, rows
def read(name, n):
    place = corpus_source.find(name, split="train").pinned()
    return place, datasets.read_rows(place, rows.parse_document, max_rows=n, seed=0, flag="--sae-corpus")
place, found = read("org/ids", 2)
_, texts = read("org/three@refs/convert/parquet:default", 4)
print(json.dumps([[r.ids for r in found], pretokenised.stated_tokenisation(place).tokenizer_name, texts]))
"""
    env = environment(hub, tmp_path / "home")  # `datasets` reads it when it is imported
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ids, made_with, texts = json.loads(done.stdout)
    assert ids == [[0, 3 * i, 0, 3 * i + 1] for i in range(1, 33)]
    assert made_with == "gpt2"
    assert len(texts) == 4
    assert {*texts} == {"p", "q"}
