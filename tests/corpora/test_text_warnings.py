"""Degenerate text, and text that the SAEs were trained on, are named."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import write_sae

from sae_checks.corpora import text_warnings
from sae_checks.corpora.sequences import Convention, TokenRow, build
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.release import release

N_VOCABULARY = 500


def named(*token_lists, n_vocabulary=N_VOCABULARY):
    convention = Convention(prepend_bos=False, special_tokens_kept=True, n_context_tokens=999)
    rows = [TokenRow(row=i, tokens=tokens, n_given=1, was_cut=False) for i, tokens in enumerate(token_lists)]
    return list(text_warnings.of_tokens(build(rows, convention, [], score_special=False), n_vocabulary))


def drawn(n, n_distinct, seed=0):
    return random.Random(seed).choices(range(n_distinct), k=n)


def test_ordinary_text_is_not_named():
    """As varied as a language, short or long, with a quotation that comes twice."""
    assert named(drawn(200, 400), drawn(20, 400, seed=1)) == []
    assert named(drawn(300, 400) + drawn(40, 400)) == []


def test_few_distinct_tokens_are_named():
    """However long the text is; letters and bases are as few as their vocabulary has."""
    (found,) = named(drawn(400, 5), drawn(400, 5, seed=1))
    assert found.startswith("few distinct tokens, as varied as 5.0 ")
    assert named(drawn(400, 20), n_vocabulary=256) == []
    assert named(drawn(400, 4), n_vocabulary=8) == []


def test_a_text_that_goes_in_circles_is_named():
    """The same 100 tokens again and again; other texts' runs are no repetition."""
    assert named(drawn(100, 400) * 4) == ["73 % of its runs of 32 tokens repeat an earlier one of the same text"]
    assert named(drawn(100, 400), drawn(100, 400)) == []


@pytest.fixture
def trained_on(tmp_path):
    """A release whose SAEs name these texts."""

    def make(*paths):
        for i, path in enumerate(paths):
            write_sae(tmp_path / f"sae{i}", metadata={"dataset_path": path})
        return release.resolve(str(tmp_path))

    return make


def test_the_training_text_is_named(trained_on):
    """A dataset by its id, a file by its path; another text is not."""
    found = trained_on("org/text", "org/text", "other.jsonl")
    dataset = CorpusSource(dataset=SimpleNamespace(repo_id="org/text"))
    assert list(text_warnings.of_training(dataset, found)) == [
        "2 of 3 SAEs were trained on it (dataset_path), so it may not be held out"
    ]
    assert "1 of 3" in next(text_warnings.of_training(CorpusSource(path=Path("other.jsonl")), found))
    assert list(text_warnings.of_training(CorpusSource(path=Path("held_out.jsonl")), found)) == []
