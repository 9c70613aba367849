"""Corpus files, read and checked without torch, so that a bad file is refused before anything heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sae_checks import errors
from sae_checks.corpora import rows
from sae_checks.corpora.rows import Document, Query, RowError

_TEXT_FORMS = (
    '.jsonl with {"text": ...} or {"input_ids": [...]} on every line, .parquet with such columns, or .txt with '
    "documents apart by blank lines"
)
_LAMBADA_FORMS = '.jsonl with {"text": ...} on every line, or .parquet with it: at least two words apart by spaces'
_CBT_FORMS = (
    ".jsonl or .parquet with sentences, question (XXXXX for the gap), answer and options in each row, the answer among "
    "the options"
)

Row = TypeVar("Row")


def read_documents(path: Path) -> tuple[Document, ...]:
    """
    Read the documents of a text corpus, in the file's order.

    Raises:
        UsageError: the file is missing, has another form, or contains no text.
    """
    flag = "--sae-corpus"
    found: tuple[Document, ...]
    if path.suffix == ".txt":
        found = tuple(part.strip() for part in _blank_line_parts(_read(path, flag, _TEXT_FORMS)))
    else:
        found = tuple(_rows(path, flag, _TEXT_FORMS, rows.parse_document))
    documents = tuple(row for row in found if rows.identity(row).strip())
    if not documents:
        raise errors.bad_corpus(flag, str(path), "there is no text in it", _TEXT_FORMS)
    return documents


def read_passages(path: Path) -> tuple[str, ...]:
    """
    Read the passages of a Lambada file, in the file's order; the last space-separated word of each is the answer.

    Raises:
        UsageError: the file is missing or has another form, or a passage has no last word.
    """
    passages = tuple(_rows(path, "--sae-lambada", _LAMBADA_FORMS, rows.parse_passage))
    if not passages:
        raise errors.bad_corpus("--sae-lambada", str(path), "there is no passage in it", _LAMBADA_FORMS)
    return passages


def read_queries(path: Path) -> tuple[Query, ...]:
    """
    Read the queries of a Children's Book Test file, in the file's order.

    Raises:
        UsageError: the file is missing or has another form, or the answer of a query is not among its options.
    """
    queries = tuple(_rows(path, "--sae-cbt", _CBT_FORMS, rows.parse_query))
    if not queries:
        raise errors.bad_corpus("--sae-cbt", str(path), "there is no query in it", _CBT_FORMS)
    return queries


def _rows(path: Path, flag: str, form: str, parse: Callable[[object], Row]) -> Iterator[Row]:
    """The parsed rows of a .jsonl or .parquet file."""
    if path.suffix == ".jsonl":
        raw_rows = _jsonl(_read(path, flag, form))
    elif path.suffix == ".parquet":
        raw_rows = _parquet(path, flag, form)
    else:
        raise errors.bad_corpus(flag, str(path), f"unknown form {path.suffix!r}", form)
    for where, row in raw_rows:
        try:
            yield parse(row)
        except RowError as problem:
            raise errors.bad_corpus(flag, str(path), f"{where} {problem}", form) from None


def _read(path: Path, flag: str, form: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise errors.bad_corpus(flag, str(path), f"cannot be read ({errors.shown(problem)})", form) from None


def _jsonl(content: str) -> Iterator[tuple[str, object]]:
    # TRAP: splitlines() would also split at U+2028 and other separators, which JSON strings may contain
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield f"line {number}", row


def _parquet(path: Path, flag: str, form: str) -> Iterator[tuple[str, object]]:
    import pyarrow as pa  # here: most runs read no parquet file
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (OSError, pa.ArrowException, UnicodeDecodeError) as problem:
        raise errors.bad_corpus(flag, str(path), f"cannot be read ({errors.shown(problem)})", form) from None


def _blank_line_parts(text: str) -> Iterator[str]:
    part: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            part.append(line)
        elif part:
            yield "\n".join(part)
            part = []
