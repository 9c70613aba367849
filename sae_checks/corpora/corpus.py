"""A plan's corpora as the model reads them: read, checked, tokenised, fingerprinted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_checks import errors
from sae_checks.corpora import cbt, datasets, files, lambada, pretokenised, rows, text, token_cache
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.plan import Plan
from sae_checks.provenance import CorpusFacts
from sae_checks.release.release import sha256_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corpus:
    """The sequences of one corpus and what they were made of."""

    sequences: Sequences
    facts: CorpusFacts
    texts: tuple[str, ...]
    """of Lambada's passages, by the index of an item; empty for what shows none."""
    queries: tuple[rows.Query, ...] = ()
    """of the Children's Book Test, by their index; empty for all else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where a corpus comes from and how much of it is taken. Any: rows of one kind, which the three agree on."""

    place: CorpusSource
    flag: str
    read_file: Callable[[Path], tuple[Any, ...]]
    read_row: Callable[[object], Any]
    tokenise: Callable[..., Sequences]
    n_most: int
    """sequences or items that are measured."""
    n_read: int
    """rows that are read of a dataset, some of which may be too short."""
    n_context_tokens: int


def make(plan: Plan, model: ModelSource, kind: str, tokenizer: Tokenizer, *, prepends_bos: bool) -> Corpus:
    """
    The corpus *kind* of *plan* in tokens of *tokenizer*, that of *model*.

    Raises:
        MeasuringError: it cannot be read, its tokens are another tokenizer's, or nothing is left to score.
        UsageError: its file has changed since the plan was made.
    """
    source = _source(plan, kind)
    bos = bos_of(tokenizer, model.name) if prepends_bos else None
    convention = Convention(
        prepend_bos=prepends_bos,
        special_tokens_kept=plan.options.special_tokens == "keep",
        n_context_tokens=source.n_context_tokens,
    )
    content = _rows(plan, model, source, tokenizer)
    content_sha256 = _hash_of(source.place, content)
    ingredients = token_cache.Ingredients(
        kind=kind,
        content_sha256=content_sha256,
        tokenizer=Path(tokenizer.name_or_path),
        convention=convention,
        seed=plan.options.seed,
        n_most=source.n_most,
    )
    sequences = token_cache.get(
        ingredients,
        lambda: source.tokenise(
            content,
            tokenizer,
            convention,
            bos=bos,
            n_most=source.n_most,
            seed=plan.options.seed,
        ),
    )
    if not sequences.scored.any():
        raise errors.nothing_to_score(source.flag, source.place.name)
    facts = CorpusFacts(
        kind=kind,
        source=source.place.name,
        sha256=content_sha256,
        fingerprint=sequences.fingerprint,
        prepend_bos=prepends_bos,
        n_sequences=len(sequences.rows),
        n_scored_tokens=int(sequences.scored.sum()),
        n_context_tokens=source.n_context_tokens,
        n_cut=sequences.n_cut,
        n_listed=len(content) if source.place.path is not None or len(content) < source.n_read else None,
    )
    return Corpus(
        sequences=sequences,
        facts=facts,
        texts=content if kind == "lambada" else (),
        queries=content if kind == "cbt" else (),
    )


def beginning(corpus: Corpus, n_sequences: int) -> Corpus:
    """The first *n_sequences* of *corpus*: what the plan asks for of one that can be extended."""
    if len(corpus.sequences.rows) <= n_sequences:
        return corpus
    sequences = corpus.sequences.first(n_sequences, corpus.sequences.tokens.shape[1])
    facts = replace(
        corpus.facts,
        fingerprint=sequences.fingerprint,
        n_sequences=n_sequences,
        n_scored_tokens=int(sequences.scored.sum()),
    )
    return replace(corpus, sequences=sequences, facts=facts)


def bos_of(tokenizer: Tokenizer, model: str) -> int:
    """
    The token that stands before every sequence.

    Raises:
        MeasuringError: the tokenizer has none.
    """
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if bos is None:
        raise errors.no_bos(model)
    return bos


def _rows(plan: Plan, model: ModelSource, source: _Source, tokenizer: Tokenizer) -> tuple[Any, ...]:
    place = source.place
    if place.path is not None:
        found = source.read_file(place.path)
    else:
        seed = plan.options.seed
        found = datasets.read_rows(place, source.read_row, n_most=source.n_read, seed=seed, flag=source.flag)
    if not any(isinstance(row, rows.Pretokenised) for row in found):
        return found
    try:
        making = pretokenised.making_of(place)
    except errors.HubError as problem:
        raise errors.MeasuringError(str(problem)) from None
    name = model.tokenizer_repo_id
    pretokenised.check(found, tokenizer, making, flag=source.flag, source=place.name, model=name)
    return pretokenised.unpacked(found, tokenizer)


def _source(plan: Plan, kind: str) -> _Source:
    options = plan.options
    if kind == "text":
        return _Source(
            place=plan.corpus,
            flag="--sae-corpus",
            read_file=files.read_documents,
            read_row=rows.document,
            tokenise=text.tokenise,
            n_most=options.n_most_sequences or options.n_sequences,
            n_read=2 * (options.n_most_sequences or options.n_sequences),
            n_context_tokens=plan.n_context_tokens,
        )
    if kind == "cbt":
        assert plan.cbt is not None
        return _Source(
            place=plan.cbt,
            flag="--sae-cbt",
            read_file=files.read_queries,
            read_row=rows.query,
            tokenise=cbt.tokenise,
            n_most=options.n_queries,
            n_read=options.n_queries,
            n_context_tokens=plan.n_model_context_tokens or plan.n_context_tokens,
        )
    assert plan.lambada is not None  # without passages there is nothing to ask for
    return _Source(
        place=plan.lambada,
        flag="--sae-lambada",
        read_file=files.read_passages,
        read_row=rows.passage,
        tokenise=lambada.tokenise,
        n_most=options.n_items,
        n_read=options.n_items,
        n_context_tokens=plan.n_model_context_tokens or plan.n_context_tokens,
    )


def _hash_of(place: CorpusSource, content: tuple[Any, ...]) -> str:
    """Of the file; of a dataset, of the rows that were read from it."""
    if place.path is not None:
        return sha256_of(place.path)
    return hashlib.sha256("\0".join(map(rows.identity, content)).encode()).hexdigest()
