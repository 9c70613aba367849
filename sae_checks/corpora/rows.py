"""One row of a corpus, from a file or a dataset: checked, and of the kind that its measurement needs."""

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
    """what the ids stand for, where the row says so."""


Document = str | Pretokenised
GAP = "XXXXX"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One row of the Children's Book Test; all of it in tokens of the Penn Treebank, apart by spaces."""

    sentences: tuple[str, ...]
    question: str
    """with GAP where an option belongs."""
    answer: str
    options: tuple[str, ...]
    """different from each other, the answer among them."""


class RowError(Exception):
    """A row is not of the form: a sentence without its subject, which whoever knows file and line puts before it."""


def document(row: object) -> Document:
    """
    The document of a row with `text`, or with token ids in `input_ids` or `tokens`.

    Raises:
        RowError: it has neither, or something else under these keys.
    """
    if not isinstance(row, Mapping):
        raise RowError('is not {"text": ...}')
    key = next((key for key in _ID_KEYS if row.get(key) is not None), None)
    if key is None:
        return text(row)
    ids = row[key]
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < _ID_MOST for i in ids):
        raise RowError(f"has an {key} that is no list of token ids")
    return Pretokenised(ids=tuple(ids), text=text(row) if row.get("text") is not None else None)


def text(row: object) -> str:
    """
    The `text` of a row.

    Raises:
        RowError: there is none.
    """
    value = row.get("text") if isinstance(row, Mapping) else None
    if not isinstance(value, str):
        raise RowError('is not {"text": ...}')
    return encodable(value)


def encodable(value: str) -> str:
    """*value*, if it is Unicode: half an emoji is a string to JSON and to nobody else."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError("is no Unicode text") from None
    return value


def passage(row: object) -> str:
    """
    A Lambada passage: the `text` of a row, at least two words apart by spaces, ending in the second of them.

    Raises:
        RowError: it is not.
    """
    found = text(row)
    context, _, word = found.rpartition(" ")
    if not (context.strip() and word.strip()):
        raise RowError("has no last word")
    return found


def query(row: object) -> Query:
    """
    A row of the Children's Book Test: `sentences`, `question`, `answer` and `options`, as cam-cst/cbt has them.

    Raises:
        RowError: it is not, it has no gap, or its answer is not among its options.
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
    return tuple(map(encodable, values))


def identity(row: Document | Query) -> str:
    """What tells *row* from others, whatever file it stands in: its place in a seeded order depends on this alone."""
    if isinstance(row, Query):
        return "\0".join([*row.sentences, row.question, row.answer, *row.options])
    return row if isinstance(row, str) else " ".join(map(str, row.ids))
