"""Strict: the base of everything that a recipe can say.

Frozen, unknown keys forbidden, no conversion between types: ``"0.5"`` is not a number and ``1`` is
not ``true``. Where a field takes one value or several, `OneOrMany` makes a tuple of both spellings.
Not here: how errors are shown with line numbers (`surgeon.recipe`).
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from surgeon.errors import InputError

__all__ = ["Many", "OneOrMany", "Strict", "read_document"]

Model = TypeVar("Model", bound="Strict")


class Strict(BaseModel):
    """A frozen pydantic model that converts nothing and ignores nothing."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Many:
    """Annotation for a tuple field: a list, as YAML has it, becomes the tuple."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.to_tuple, handler(source))

    @staticmethod
    def to_tuple(value: object) -> object:
        """A list as a tuple; anything else as it is."""
        return tuple(value) if isinstance(value, list) else value


class OneOrMany(Many):
    """Annotation for a tuple field that is never empty: a single value is short for a tuple of one."""

    @staticmethod
    def to_tuple(value: object) -> object:
        """Anything but a list or a tuple becomes a tuple of one."""
        if not isinstance(value, list | tuple):
            return (value,)
        if not value:
            raise ValueError("an empty list says nothing; leave the key out, or list at least one")
        return tuple(value)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        array = {**handler(schema), "minItems": 1}
        return {"anyOf": [array["items"], array]}


def read_document(model: type[Model], document: object, what: str) -> Model:
    """The `model` that a parsed JSON document says; `what` names the document in the error.

    Raises:
        InputError: unknown or missing keys or wrong types, one line each.
    """
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or what}: {e['msg']}" for e in error.errors()]
        raise InputError(f"the {what} cannot be read:\n" + "\n".join(lines)) from None
