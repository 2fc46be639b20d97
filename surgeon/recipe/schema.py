"""The JSON Schema of a recipe, for editors and for the reference in the documentation."""

from __future__ import annotations

from typing import Any

from surgeon.recipe.recipe import Recipe

__all__ = ["recipe_schema"]


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) with every operation, pass, criterion and so on that is registered."""
    schema = Recipe.model_json_schema(by_alias=True)
    schema["required"] = ["surgeon"]
    schema["anyOf"] = [{"required": ["steps"]}, {"required": ["extends"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "surgeon recipe"}
