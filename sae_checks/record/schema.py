"""
Write `record.schema.json`, the JSON Schema of a record, from its definition in `document`.

`python -m sae_checks.record.schema` writes the file beside this one.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from sae_checks.record.document import SCHEMA, Document

PATH = Path(__file__).with_name("record.schema.json")

Json = dict[str, Any]  # Any: JSON's values


def json_schema() -> Json:
    """The JSON Schema (draft 2020-12) of a record, with the docstring of every field as its description."""
    (found,), components = msgspec.json.schema_components([Document], ref_template="#/$defs/{name}")
    del found  # a reference to the first of the components
    definitions = {name: components[name] for name in sorted(components)}
    for name, definition in definitions.items():
        described = _field_docstrings(name)
        for field, schema in definition.get("properties", {}).items():
            schema.pop("default", None)  # what is left out is left out, whatever a reader takes for it
            if field in described:
                schema["description"] = described[field]
        if "properties" in definition:
            definition["additionalProperties"] = False  # `record` refuses unknown fields of dataclasses, too
    document = definitions.pop("Document")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": f"sae-checks run record, schema {SCHEMA}",
        "$defs": definitions,
    }


def text() -> str:
    """What `record.schema.json` holds."""
    return json.dumps(json_schema(), indent=1) + "\n"


def _field_docstrings(class_name: str) -> dict[str, str]:
    """The docstrings below the fields of a class of the document, by field."""
    module = _modules()[class_name]
    (node,) = (n for n in _parsed(module).body if isinstance(n, ast.ClassDef) and n.name == class_name)
    return {
        field.target.id: doc.value.value
        for field, doc in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


@cache
def _modules() -> dict[str, ModuleType]:
    """Where each class is written that the document can name."""
    names = vars(sys.modules[Document.__module__])
    direct = [each for each in names.values() if _is_row(each)]
    of_them = [each for row in direct for each in vars(sys.modules[row.__module__]).values() if _is_row(each)]
    return {each.__name__: sys.modules[each.__module__] for each in (*direct, *of_them)}


@cache
def _parsed(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _is_row(value: object) -> bool:
    return inspect.isclass(value) and (dataclasses.is_dataclass(value) or issubclass(value, msgspec.Struct))


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
