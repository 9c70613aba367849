"""
The record of one run as a file: strict JSON that others read, defined in `document`.

Files of schema 3 are still read, see `schema3`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec

from sae_checks import errors
from sae_checks.record import schema3
from sae_checks.record.document import SCHEMA, Document
from sae_checks.record.results import Record, ReleaseFacts, Result
from sae_checks.record.rows import BadRowError, to_document, to_record

Json = dict[str, Any]  # Any: JSON's values, checked by msgspec before they are used
_N_LEVELS = 4
"""Levels of the file that are indented: document, results, one result, one field of it. Its entries are a line each."""


def to_json(record: Record) -> Json:
    """
    *record* as JSON values.

    Raises:
        ValueError: a number is not finite, or a value is not one that its field may have; says which field.
    """
    document: Json = msgspec.to_builtins(to_document(record), enc_hook=_plain)
    msgspec.convert(document, Document)
    for where in _not_finite(document, ""):
        raise ValueError(f"{where} is not finite, so it is not JSON compliant")
    return document


def from_json(document: Json, *, path: str = "record") -> Record:
    """
    The record that JSON values of schema 3 or 4 hold; *path* is named in errors.

    Raises:
        RecordError: the values are no record of these schemas.
    """
    document = _of_this_schema(document, path)
    try:
        found = msgspec.convert(document, Document)
        for where in _unknown_fields(document, found, "$"):
            raise errors.bad_record(path, f"unknown field {where}")
        return to_record(found)
    except (msgspec.ValidationError, BadRowError) as problem:
        raise errors.bad_record(path, str(problem)) from None


def text(record: Record) -> str:
    """*record* as the text of its file: each entry of a field of a result is one line."""
    return _indented(to_json(record), 0) + "\n"


def write(record: Record, path: Path) -> None:
    """
    Write *record* to *path*, whole or not at all.

    Raises:
        ValueError: a number is not finite.
        OSError: the file cannot be written; an older one stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # beside it: a rename does not cross file systems
    try:
        part.write_text(text(record), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> Record:
    """
    Read the record in *path*.

    Raises:
        RecordError: not strict JSON of schema 3 or 4.
    """
    try:
        found = path.read_text(encoding="utf-8")
    except OSError as problem:
        inner = path / "record.json"
        instead = str(inner) if inner.is_file() else ""
        raise errors.bad_record(str(path), problem.strerror or str(problem), instead=instead) from None
    except ValueError as problem:
        raise errors.bad_record(str(path), str(problem)) from None
    return loads(found, str(path))


def loads(text: str, source: str) -> Record:
    """
    The record that *text* holds; *source* is named in errors.

    Raises:
        RecordError: not strict JSON of schema 3 or 4.
    """
    return from_json(parsed(text, source), path=source)


def parsed(text: str, source: str) -> Json:
    """
    *text* as JSON values of schema 4, of which only the schema is checked yet.

    Raises:
        RecordError: not strict JSON, not an object, or of another schema.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as problem:
        raise errors.bad_record(source, str(problem)) from None
    return _of_this_schema(document, source)


def pack(result: Result) -> str:
    """*result* as one string, for the way from an xdist worker to the controller."""
    blank = ReleaseFacts(name="", source="", revision=None, sae_ids=(result.sae_id,))
    alone = Record(started="", wall_s=0.0, release=blank, options=(), software=(), platform="", results=(result,))
    return dumps(to_json(alone))


def unpack(text: str) -> Result:
    """The result that `pack` packed."""
    (result,) = from_json(json.loads(text)).results
    return result


def dumps(value: object, *, indent: int | None = None) -> str:
    """*value* as strict JSON; a NaN or an infinity raises ValueError."""
    return json.dumps(value, allow_nan=False, indent=indent)


def _of_this_schema(document: Any, source: str) -> Json:  # Any: whatever JSON holds
    if not isinstance(document, dict) or "schema" not in document:
        raise errors.bad_record(source, "it is not an object with the field schema")
    schema = document["schema"]
    if type(schema) is not int or schema not in (schema3.SCHEMA, SCHEMA):
        raise errors.bad_record(source, f"its schema is {schema!r}; {schema3.SCHEMA} and {SCHEMA} can be read")
    if schema == SCHEMA:
        return document
    try:
        return schema3.translate(document)
    except KeyError as problem:
        raise errors.bad_record(source, f"the field {problem} of schema {schema3.SCHEMA} is missing") from None
    except (TypeError, AttributeError, ValueError) as problem:
        raise errors.bad_record(source, f"it is not of schema {schema3.SCHEMA}: {problem}") from None


def _plain(value: object) -> float:
    """NumPy's float64 is a float that msgspec does not know."""
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not a value of a record")


def _not_finite(value: object, where: str) -> Iterator[str]:
    """Places of numbers in *value* that JSON cannot hold."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} = {value}"
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _not_finite(each, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            yield from _not_finite(each, f"{where}[{i}]")


def _unknown_fields(value: Any, found: Any, where: str) -> Iterator[str]:  # Any: JSON's values, and rows
    """Fields of *value* that *found*, made of it, does not have: of a dataclass msgspec ignores them."""
    if isinstance(value, dict):
        known = {field.name for field in fields(found)} if is_dataclass(found) else value.keys()
        for key, each in value.items():
            if key not in known:
                yield f"{where}.{key}"
            else:
                of = found.get(key) if isinstance(found, dict) else getattr(found, key, None)
                yield from _unknown_fields(each, of, f"{where}.{key}")
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        for i, (each, of) in enumerate(zip(value, found, strict=True)):
            yield from _unknown_fields(each, of, f"{where}[{i}]")


def _indented(value: Any, level: int) -> str:  # Any: JSON's values
    if level == _N_LEVELS or not value or not isinstance(value, dict | list | tuple):
        return dumps(value)
    margin = "\n" + " " * (level + 1)
    if isinstance(value, dict):
        inner = [f"{dumps(key)}: {_indented(each, level + 1)}" for key, each in value.items()]
        return "{" + margin + f",{margin}".join(inner) + "\n" + " " * level + "}"
    inner = [_indented(each, level + 1) for each in value]
    return "[" + margin + f",{margin}".join(inner) + "\n" + " " * level + "]"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value
