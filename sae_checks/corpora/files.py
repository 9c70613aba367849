"""Reading and checking corpus files; nothing heavy is imported, so that a bad file is refused before torch is."""

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
    The documents of a text corpus, in the file's order.

    Raises:
        UsageError: the file is missing, not of the form, or has no text.
    """
    flag = "--sae-corpus"
    found: tuple[Document, ...]
    if path.suffix == ".txt":
        found = tuple(part.strip() for part in _blank_line_parts(_read(path, flag, _TEXT_FORMS)))
    else:
        found = tuple(_rows(path, flag, _TEXT_FORMS, rows.document))
    documents = tuple(row for row in found if rows.identity(row).strip())
    if not documents:
        raise errors.bad_corpus(flag, str(path), "there is no text in it", _TEXT_FORMS)
    return documents


def read_passages(path: Path) -> tuple[str, ...]:
    """
    The passages of a Lambada file, in its order; the last space-separated word of each is the answer.

    Raises:
        UsageError: the file is missing, not of the form, or a passage has no last word.
    """
    passages = tuple(_rows(path, "--sae-lambada", _LAMBADA_FORMS, rows.passage))
    if not passages:
        raise errors.bad_corpus("--sae-lambada", str(path), "there is no passage in it", _LAMBADA_FORMS)
    return passages


def read_queries(path: Path) -> tuple[Query, ...]:
    """
    The queries of a Children's Book Test file, in its order.

    Raises:
        UsageError: the file is missing, not of the form, or a row cannot be answered.
    """
    queries = tuple(_rows(path, "--sae-cbt", _CBT_FORMS, rows.query))
    if not queries:
        raise errors.bad_corpus("--sae-cbt", str(path), "there is no query in it", _CBT_FORMS)
    return queries


def _rows(path: Path, flag: str, form: str, kind: Callable[[object], Row]) -> Iterator[Row]:
    """The rows of a .jsonl or .parquet file, each as *kind* reads it."""
    if path.suffix == ".jsonl":
        found = _jsonl(_read(path, flag, form))
    elif path.suffix == ".parquet":
        found = _parquet(path, flag, form)
    else:
        raise errors.bad_corpus(flag, str(path), f"unknown form {path.suffix!r}", form)
    for where, row in found:
        try:
            yield kind(row)
        except RowError as problem:
            raise errors.bad_corpus(flag, str(path), f"{where} {problem}", form) from None


def _read(path: Path, flag: str, form: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise errors.bad_corpus(flag, str(path), f"cannot be read ({errors.shown(problem)})", form) from None


def _jsonl(content: str) -> Iterator[tuple[str, object]]:
    # split("\n"), not splitlines(): JSON strings may hold U+2028 and other separators as they are
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield f"line {number}", row


def _parquet(path: Path, flag: str, form: str) -> Iterator[tuple[str, object]]:
    import pyarrow as pa  # here: most runs read no such file
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
