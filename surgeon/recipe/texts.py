"""Which texts a recipe names, and how it may spell them. Reading them is the matter of `surgeon.io`."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Self

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from surgeon.graph.strict import Strict

__all__ = ["TextSource", "Texts"]


class TextSource(Strict):
    """One file of text or token ids, or a dataset, and its share among several."""

    path: Annotated[str, Field(min_length=1)]
    """A text file, ``.jsonl``, ``.safetensors`` with ``input_ids``, ``.json`` with lists of ids, a folder of
    ``.txt`` and ``.jsonl`` files, or with `split` the id of a dataset on the hub."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the samples, relative to the other files."""
    split: Annotated[str, Field(min_length=1)] | None = None
    """Part of a dataset, a slice included: ``train[:2000]``. Makes `path` the id of a dataset."""
    config: Annotated[str, Field(min_length=1)] | None = None
    """Which one, of a dataset that has several; with `split` only."""
    field: Annotated[str, Field(min_length=1)] | None = None
    """Field or column that holds the text; absent: that of the whole section."""
    name: Annotated[str, Field(min_length=1)] | None = None
    """What the text is about, where measurements tell texts apart; absent: the file's name without ending."""

    @model_validator(mode="after")
    def _config_is_of_a_dataset(self) -> Self:
        if self.config is not None and self.split is None:
            raise ValueError(f"config '{self.config}' chooses among datasets; say which split too")
        return self

    @property
    def domain(self) -> str:
        """`name`, or that of the file."""
        return self.name or PurePath(self.path).stem


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
