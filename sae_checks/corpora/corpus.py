"""The corpora of a plan: reads, checks, tokenises and fingerprints them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_checks import errors
from sae_checks.corpora import cbt, datasets, files, lambada, pretokenised, rows, text, text_warnings, token_cache
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.plan import Plan, pin_texts
from sae_checks.provenance import CorpusFacts
from sae_checks.release.release import sha256_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corpus:
    """A tokenised corpus, with its texts for reports."""

    sequences: Sequences
    facts: CorpusFacts
    texts: tuple[str, ...]
    """Lambada's passages, by item index; empty for other corpora."""
    queries: tuple[rows.Query, ...] = ()
    """queries of the Children's Book Test, by index; empty for other corpora."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """How one kind of corpus is read and tokenised. Any: its rows, of one type in all three functions."""

    source: CorpusSource
    flag: str
    """the option that names this corpus."""
    read_file: Callable[[Path], tuple[Any, ...]]
    parse_row: Callable[[object], Any]
    tokenise: Callable[..., Sequences]
    max_rows: int
    """documents or items to measure."""
    max_read: int
    """rows to read of a dataset: more than *max_rows* if some may be too short."""
    n_context_tokens: int


def make(plan: Plan, model: ModelSource, kind: str, tokenizer: Tokenizer, *, prepends_bos: bool) -> Corpus:
    """
    Read and tokenise one corpus of *plan*.

    Args:
        plan: names the corpus and how much of it is taken.
        model: where the language model lies.
        kind: "text", "lambada" or "cbt".
        tokenizer: the model's.
        prepends_bos: put a BOS before every sequence.

    Raises:
        MeasuringError: the corpus cannot be read, has tokens of another tokenizer, or nothing to score.
        UsageError: a file cannot be read, although it could when the run started.
    """
    recipe = _recipe(plan, kind)
    if recipe.source.wanted is not None:
        plan = _pinned(plan, recipe)
        recipe = _recipe(plan, kind)
    bos = bos_token(tokenizer, model.name) if prepends_bos else None
    convention = Convention(
        prepend_bos=prepends_bos,
        special_tokens_kept=plan.options.special_tokens == "keep",
        n_context_tokens=recipe.n_context_tokens,
    )
    content = _read(plan, model, recipe, tokenizer)
    content_sha256 = _sha256(recipe.source, content)
    inputs = token_cache.TokenInputs(
        kind=kind,
        content_sha256=content_sha256,
        tokenizer=Path(tokenizer.name_or_path),
        convention=convention,
        seed=plan.options.seed,
        max_rows=recipe.max_rows,
    )

    def tokenise() -> Sequences:
        seed = plan.options.seed
        return recipe.tokenise(content, tokenizer, convention, bos=bos, max_rows=recipe.max_rows, seed=seed)

    # TRAP: a tokenizer in memory has no files that would tell it from another of the same name
    sequences = tokenise() if model.in_memory is not None else token_cache.get(inputs, tokenise)
    if not sequences.scored.any():
        raise errors.nothing_to_score(recipe.flag, recipe.source.name)
    facts = CorpusFacts(
        kind=kind,
        source=recipe.source.name,
        sha256=content_sha256,
        fingerprint=sequences.fingerprint,
        prepend_bos=prepends_bos,
        n_sequences=len(sequences.rows),
        n_scored_tokens=int(sequences.scored.sum()),
        n_context_tokens=recipe.n_context_tokens,
        n_truncated=sequences.n_cut,
        n_copies=sequences.n_copies,
        warnings=_warnings(plan, sequences, tokenizer) if kind == "text" else (),
        n_listed=len(content) - sequences.n_copies
        if recipe.source.path is not None or len(content) < recipe.max_read
        else None,
    )
    return Corpus(
        sequences=sequences,
        facts=facts,
        texts=content if kind == "lambada" else (),
        queries=content if kind == "cbt" else (),
    )


def _pinned(plan: Plan, recipe: _Recipe) -> Plan:
    """*plan* with the text of *recipe* pinned: a diagnosis may need a text that no selected check does."""
    try:
        plan = pin_texts(plan, {recipe.flag})
    except errors.HubError as problem:
        raise errors.MeasuringError(str(problem)) from None
    if (source := plan.texts[recipe.flag]) is not None and source.problem is not None:
        raise errors.MeasuringError(source.problem)
    return plan


def _warnings(plan: Plan, sequences: Sequences, tokenizer: Tokenizer) -> tuple[str, ...]:
    """What makes the text of *plan* a poor exam, known before it is measured."""
    return (
        *text_warnings.of_tokens(sequences, len(tokenizer)),
        *text_warnings.of_training(plan.corpus, plan.release),
    )


def bos_token(tokenizer: Tokenizer, model: str) -> int:
    """
    Id of the token before every sequence: BOS, or EOS if the tokenizer has no BOS.

    Raises:
        MeasuringError: the tokenizer of *model* has neither.
    """
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if bos is None:
        raise errors.no_bos(model)
    return bos


def _read(plan: Plan, model: ModelSource, recipe: _Recipe, tokenizer: Tokenizer) -> tuple[Any, ...]:
    """The rows of the corpus; rows of token ids are checked and cut at document boundaries."""
    source, flag = recipe.source, recipe.flag
    if source.path is not None:
        content = recipe.read_file(source.path)
    else:
        seed = plan.options.seed
        content = datasets.read_rows(source, recipe.parse_row, max_rows=recipe.max_read, seed=seed, flag=flag)
    if not any(isinstance(row, rows.Pretokenised) for row in content):
        return content
    try:
        stated = pretokenised.stated_tokenisation(source)
    except errors.HubError as problem:
        raise errors.MeasuringError(str(problem)) from None
    pretokenised.check(content, tokenizer, stated, flag=flag, source=source.name, model=model.tokenizer_repo_id)
    return pretokenised.unpacked(content, tokenizer)


def _recipe(plan: Plan, kind: str) -> _Recipe:
    options = plan.options
    if kind == "text":
        return _Recipe(
            source=plan.corpus,
            flag="--sae-corpus",
            read_file=files.read_documents,
            parse_row=rows.parse_document,
            tokenise=text.tokenise,
            max_rows=options.n_sequences,
            max_read=2 * options.n_sequences,
            n_context_tokens=plan.n_context_tokens,
        )
    if kind == "cbt":
        assert plan.cbt is not None
        return _Recipe(
            source=plan.cbt,
            flag="--sae-cbt",
            read_file=files.read_queries,
            parse_row=rows.parse_query,
            tokenise=cbt.tokenise,
            max_rows=options.n_queries,
            max_read=options.n_queries,
            n_context_tokens=plan.n_model_context_tokens or plan.n_context_tokens,
        )
    assert plan.lambada is not None
    return _Recipe(
        source=plan.lambada,
        flag="--sae-lambada",
        read_file=files.read_passages,
        parse_row=rows.parse_passage,
        tokenise=lambada.tokenise,
        max_rows=options.n_items,
        max_read=options.n_items,
        n_context_tokens=plan.n_model_context_tokens or plan.n_context_tokens,
    )


def _sha256(source: CorpusSource, content: tuple[Any, ...]) -> str:
    """sha256 of the file, or of the rows that were read of a dataset."""
    if source.path is not None:
        return sha256_of(source.path)
    return hashlib.sha256("\0".join(map(rows.identity, content)).encode()).hexdigest()
