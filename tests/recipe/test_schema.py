"""The JSON Schema lists everything that is registered, and its references resolve."""

from __future__ import annotations

import json

from surgeon.criteria import criteria
from surgeon.operations import operations
from surgeon.passes import passes
from surgeon.recipe import recipe_schema


def test_everything_registered_is_in_it():
    text = json.dumps(recipe_schema())
    for registry in (operations, passes, criteria):
        for name in registry.names():
            assert f'"const": "{name}"' in text


def test_references_resolve():
    schema = recipe_schema()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                assert reference.removeprefix("#/$defs/") in schema["$defs"]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema)


def test_a_recipe_needs_a_version_and_steps_or_a_base():
    schema = recipe_schema()
    assert schema["required"] == ["surgeon"]
    assert schema["anyOf"] == [{"required": ["steps"]}, {"required": ["extends"]}]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {
        "surgeon",
        "extends",
        "model",
        "rehome",
        "calibration",
        "steps",
        "export",
        "evaluation",
    }
