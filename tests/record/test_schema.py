"""The JSON Schema of a record is what its definition generates."""

import jsonschema

from sae_checks.record import schema


def test_the_file_is_what_is_generated():
    """After a change of the definition: python -m sae_checks.record.schema."""
    assert schema.PATH.read_text(encoding="utf-8") == schema.text()


def test_the_schema_is_a_json_schema():
    """It can be used by any validator of its draft."""
    found = schema.json_schema()
    assert found["$schema"].endswith("2020-12/schema")
    jsonschema.Draft202012Validator.check_schema(found)


def test_every_object_is_closed_and_described():
    """A misspelt field is an error, not an extra; the docstring of a field is its description."""
    definitions = schema.json_schema()["$defs"]
    assert len(definitions) > 15
    for name, node in definitions.items():
        assert node["additionalProperties"] is False, name
        assert "description" in node, name
    assert definitions["EstimateRow"]["properties"]["n"]["description"].startswith("sequences or items")
    assert "description" in definitions["SaeFacts"]["properties"]["hook_out"]
