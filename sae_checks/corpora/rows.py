"""Rows of a corpus, from a file or a dataset, parsed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_ID_KEYS = ("input_ids", "tokens")
_QUERY_KEYS = ("sentences", "question", "answer", "options")
_ID_MOST = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretokenised:
    """A document that came as token ids."""

    ids: tuple[int, ...]
    text: str | None
    """text that the ids encode; None: not given."""


Document = str | Pretokenised
GAP = "XXXXX"
"""stands for the missing word in a query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One row of the Children's Book Test, all of it in space-separated tokens of the Penn Treebank."""

    sentences: tuple[str, ...]
    question: str
    """contains GAP."""
    answer: str
    options: tuple[str, ...]
    """distinct, with the answer among them."""


class RowError(Exception):
    """A row has another form. The text is a predicate, "has no last word"; the caller puts file and line before it."""


def parse_document(row: object) -> Document:
    """
    Parse a row with a `text`, or with token ids in `input_ids` or `tokens`.

    Raises:
        RowError: the row has neither, or values of another type.
    """
    if not isinstance(row, Mapping):
        raise RowError('is not {"text": ...}')
    key = next((key for key in _ID_KEYS if row.get(key) is not None), None)
    if key is None:
        return _text(row)
    ids = row[key]
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < _ID_MOST for i in ids):
        raise RowError(f"has an {key} that is no list of token ids")
    return Pretokenised(ids=tuple(ids), text=_text(row) if row.get("text") is not None else None)


def _text(row: object) -> str:
    value = row.get("text") if isinstance(row, Mapping) else None
    if not isinstance(value, str):
        raise RowError('is not {"text": ...}')
    return _unicode(value)


def _unicode(value: str) -> str:
    """*value*, unless it contains a lone surrogate, which JSON allows and UTF-8 does not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError("is no Unicode text") from None
    return value


def parse_passage(row: object) -> str:
    """
    Parse a Lambada passage: the `text` of a row, which ends in a word that follows a space.

    Raises:
        RowError: the row has no such text.
    """
    passage = _text(row)
    context, _, word = passage.rpartition(" ")
    if not (context.strip() and word.strip()):
        raise RowError("has no last word")
    return passage


def parse_query(row: object) -> Query:
    """
    Parse a row of the Children's Book Test: `sentences`, `question`, `answer` and `options`, as in cam-cst/cbt.

    Raises:
        RowError: the row has another form, its question no gap, or its answer is not among its options.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"is no object with the keys {', '.join(_QUERY_KEYS)}")
    sentences, options = (_texts(row, key) for key in ("sentences", "options"))
    (question,), (answer,) = (_texts({key: [row.get(key)]}, key) for key in ("question", "answer"))
    options = tuple(dict.fromkeys(options))
    if GAP not in question:
        raise RowError(f"has a question without {GAP}")
    if answer not in options:
        raise RowError("does not have its answer among its options")
    if len(options) < 2 or not all(option.strip() for option in options):
        raise RowError("has no choice: fewer than two options, or an empty one")
    return Query(sentences=sentences, question=question, answer=answer, options=options)


def _texts(row: Mapping[str, object], key: str) -> tuple[str, ...]:
    values = row.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise RowError(f"has no {key}, or something else than text there")
    return tuple(map(_unicode, values))


def identity(row: Document | Query) -> str:
    """The content of *row* as one text, on which its place in a seeded order depends."""
    if isinstance(row, Query):
        return "\0".join([*row.sentences, row.question, row.answer, *row.options])
    return row if isinstance(row, str) else " ".join(map(str, row.ids))
