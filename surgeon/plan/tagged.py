"""Tagged objects: a field whose class is chosen by a word, from a registry.

``criterion: taylor`` and ``criterion: {criterion: taylor, order: param_first}`` are the same sort of
thing: the tag is the field's own name, and a bare word is short for the tag with its defaults. The
registry is read when a value is validated, so that plugins count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from surgeon.registry import Registry, nearest

__all__ = ["Tagged", "tagged_field"]

_WITHIN: ContextVar[frozenset[str]] = ContextVar("_WITHIN", default=frozenset())
"""Tags whose JSON Schema is being made: a choice may hold a field of the same tag again."""


def tagged_field(registry: Registry[Any] | Sequence[Registry[Any]], tag: str) -> Tagged:
    """Annotation for a field whose class is chosen by `tag` among the classes of `registry`.

    The classes are pydantic models with ``tag: Literal[name]``, registered under that name::

        criterion: Annotated[Criterion, tagged_field(criteria, "criterion")]
    """
    return Tagged((registry,) if isinstance(registry, Registry) else tuple(registry), tag)


class Tagged:
    """What `tagged_field` returns: validation, dumping and JSON Schema of a tagged object."""

    def __init__(self, registries: tuple[Registry[Any], ...], tag: str) -> None:
        self.registries = registries
        self.tag = tag

    def choices(self) -> dict[str, type[BaseModel]]:
        """Every word that the tag can be, sorted, with the class that it chooses."""
        return dict(sorted(entry for registry in self.registries for entry in registry))

    def validate(self, value: object) -> BaseModel:
        """The object that `value` says; `value` is a word, a mapping with the tag, or the object."""
        if isinstance(value, BaseModel):
            name, data = getattr(value, self.tag, None), value
        elif isinstance(value, Mapping):
            name, data = value.get(self.tag), value
        else:
            name, data = value, {self.tag: value}
        if not isinstance(name, str):
            raise PydanticCustomError(
                "tag_missing",
                "expected a word or a mapping with '{tag}'; {tag} is one of {known}",
                {"tag": self.tag, "known": ", ".join(self.choices())},
            )
        chosen = next((found for one in self.registries if (found := one.find(name)) is not None), None)
        if chosen is None:
            raise PydanticCustomError(
                "tag_unknown",
                "no {tag} is called '{name}'; try {hint}",
                {"tag": self.tag, "name": name, "hint": nearest(name, list(self.choices()))},
            )
        return chosen.model_validate(data)

    def dump(self, value: BaseModel, info: SerializationInfo) -> dict[str, Any]:
        """The mapping form, tag first."""
        dumped = value.model_dump(
            mode=info.mode, by_alias=bool(info.by_alias), exclude_none=info.exclude_none
        )
        return {self.tag: dumped.pop(self.tag), **dumped}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(self.dump, info_arg=True),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        choices = self.choices()
        within = _WITHIN.get()
        if self.tag in within:
            named = {"properties": {self.tag: {"enum": list(choices)}}, "required": [self.tag]}
            return {"anyOf": [{"enum": list(choices)}, {"type": "object", **named}]}
        token = _WITHIN.set(within | {self.tag})
        try:
            objects = [
                {"allOf": [handler(found.__pydantic_core_schema__)], "required": [self.tag]}
                for found in choices.values()
            ]
        finally:
            _WITHIN.reset(token)
        words = [
            name
            for name, found in choices.items()
            if not any(field.is_required() for field in found.model_fields.values())
        ]
        return {"anyOf": [*([{"enum": words}] if words else []), *objects]}
