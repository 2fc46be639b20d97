"""Which texts a recipe names, and how it may spell them. Reading them is the matter of `surgeon.io`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from surgeon.graph.strict import Strict

__all__ = ["TextSource", "Texts"]


class TextSource(Strict):
    """One file of text or token ids, and its share among several."""

    path: Annotated[str, Field(min_length=1)]
    """A text file, ``.jsonl``, ``.safetensors`` with ``input_ids``, or ``.json`` with lists of ids."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the samples, relative to the other files."""


class _Spelling:
    """A path alone is short for a list of one TextSource; in a list, a path is short for a TextSource."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.spelt_out, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        array = handler(schema)
        item = {"anyOf": [{"type": "string"}, array["items"]]}
        return {"anyOf": [{"type": "string"}, {**array, "items": item}]}

    @staticmethod
    def spelt_out(value: object) -> object:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            return tuple({"path": item} if isinstance(item, str) else item for item in value)
        return value


Texts = Annotated[tuple[TextSource, ...], Field(min_length=1), _Spelling()]
