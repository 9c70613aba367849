"""Tokens kept between runs: found again only for the same inputs, never trusted by name."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from sae_checks.corpora import token_cache
from sae_checks.corpora.sequences import Convention
from sae_checks.corpora.token_cache import TokenInputs


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_CHECKS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    return TokenInputs(
        kind="text",
        content_sha256="c" * 64,
        tokenizer=tmp_path / "model",
        convention=Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=24),
        seed=0,
        max_rows=6,
    )


@pytest.fixture
def made():
    """What makes sequences, and how often it was asked."""
    calls = []

    def make():
        calls.append(1)
        return tiny.sequences(seed=len(calls))

    return make, calls


def entry(inputs):
    return token_cache.folder() / f"{inputs.key}.npz"


def test_the_second_run_makes_nothing(inputs, made):
    """What was made is found again, with the same fingerprint."""
    make, calls = made
    first, second = (token_cache.get(inputs, make) for _ in range(2))
    assert len(calls) == 1
    assert (first.fingerprint, first.n_cut) == (second.fingerprint, second.n_cut)


def test_every_ingredient_counts(inputs, tmp_path):
    """Another text, tokenizer, convention, seed, number or kind is another entry."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text('{"a": 1}')
    convention = inputs.convention
    others = [
        inputs,
        replace(inputs, kind="lambada"),
        replace(inputs, content_sha256="d" * 64),
        replace(inputs, tokenizer=tmp_path / "other"),
        replace(inputs, convention=replace(convention, prepend_bos=False)),
        replace(inputs, convention=replace(convention, special_tokens_kept=False)),
        replace(inputs, convention=replace(convention, n_context_tokens=23)),
        replace(inputs, seed=1),
        replace(inputs, max_rows=7),
    ]
    assert len({each.key for each in others}) == len(others)
    assert replace(inputs).key == inputs.key


@pytest.mark.parametrize("how", ["cut short", "not an archive", "empty", "another's", "changed inside", "a folder"])
def test_a_corrupt_entry_is_ignored_and_written_again(inputs, made, how):
    """Whatever happened to the file, the tokens are made anew, and then the cache serves them."""
    make, calls = made
    path = entry(inputs)
    before = token_cache.get(inputs, make)
    if how == "cut short":
        path.write_bytes(path.read_bytes()[:-30])
    elif how == "another's":
        other = replace(inputs, seed=1)
        token_cache.get(other, make)
        entry(other).replace(path)
    elif how == "changed inside":
        with np.load(path) as file:
            arrays = {name: file[name].copy() for name in file.files}
        arrays["tokens"][0, 1] ^= 1
        np.savez(path, **arrays)
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b"" if how == "empty" else b"no archive")
    n_calls = len(calls)
    again = token_cache.get(inputs, make)
    assert len(calls) == n_calls + 1
    assert again.fingerprint != before.fingerprint  # `made` makes other tokens each time: these are not the old ones
    token_cache.get(inputs, make)
    assert len(calls) == n_calls + (2 if how == "a folder" else 1)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(inputs, made, monkeypatch, tmp_path):
    """Where a file stands in the folder's place the tokens are made, every time, and nothing is raised."""
    make, calls = made
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SAE_CHECKS_CACHE", str(tmp_path / "taken"))
    for _ in range(2):
        assert token_cache.get(inputs, make).tokens.size
    assert len(calls) == 2


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    """SAE_CHECKS_CACHE first, then XDG_CACHE_HOME, then ~/.cache."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("SAE_CHECKS_CACHE", str(tmp_path / "own"))
    assert token_cache.folder() == tmp_path / "own" / "tokens"
    monkeypatch.delenv("SAE_CHECKS_CACHE")
    assert token_cache.folder() == tmp_path / "xdg" / "sae-checks" / "tokens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert token_cache.folder() == tmp_path / "home" / ".cache" / "sae-checks" / "tokens"
