"""One row of a corpus, from a file or a dataset: checked, and of the kind that its measurement needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_ID_KEYS = ("input_ids", "tokens")
_ID_MOST = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretokenised:
    """A document that came as token ids."""

    ids: tuple[int, ...]
    text: str | None
    """what the ids stand for, where the row says so."""


Document = str | Pretokenised


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


def identity(row: Document) -> str:
    """What tells *row* from others, whatever file it stands in: its place in a seeded order depends on this alone."""
    return row if isinstance(row, str) else " ".join(map(str, row.ids))
