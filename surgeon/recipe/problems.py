"""What is wrong with a recipe, one line each: file, line, column, key, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from surgeon.errors import RecipeError
from surgeon.plan.tagged import Tagged
from surgeon.recipe.place import KeyPath, Place, Places, dotted
from surgeon.registry import nearest

__all__ = ["problem", "refusal_of", "refuse"]

_WORDS = re.compile(r"'([^']*)'")
_SAID_IN_FULL = ("value_error", "tag_missing", "tag_unknown")
"""Findings whose message already says what was given."""


def problem(place: Place | None, path: KeyPath, what: str) -> str:
    """One line: ``file:line:column: steps.0.keep: what``."""
    return ": ".join(str(part) for part in (place, dotted(path), what) if part not in (None, ""))


def refuse(lines: list[str]) -> RecipeError:
    """The error that shows all lines at once."""
    count = f"{len(lines)} errors in the recipe:\n" if len(lines) > 1 else ""
    return RecipeError(count + "\n".join(lines))


def refusal_of(error: ValidationError, model: type[BaseModel], data: object, places: Places) -> RecipeError:
    """A RecipeError with one line for every finding of pydantic."""
    findings = [found for found in error.errors(include_url=False) if not _follows(found)]
    lines = [_line(found, model, data, places) for found in findings]
    return refuse(list(dict.fromkeys(lines)))


def _follows(found: ErrorDetails) -> bool:
    """A list counted as too short only since its items are wrong, which is reported already."""
    return found["type"] == "too_short" and len(found["input"]) > 0


def _line(found: ErrorDetails, model: type[BaseModel], data: object, places: Places) -> str:
    path = _written(found["loc"], data)
    kind = found["type"]
    if kind == "extra_forbidden":
        path = (*path[:-1], str(found["loc"][-1]))
        known = _keys(model, path[:-1], data)
        return problem(
            places.key(path), path, f"unknown key '{path[-1]}'; try {nearest(str(path[-1]), known)}"
        )
    if kind == "missing":
        return problem(places.key(path), path, f"the key '{found['loc'][-1]}' is missing")
    value = found["input"]
    said = found["msg"].removeprefix("Value error, ").replace("Tuple", "list").replace("tuple", "list")
    if kind in ("literal_error", "enum"):
        allowed = _WORDS.findall(said) or [said.removeprefix("Input should be ")]
        said = f"{value!r} is not allowed; try {nearest(str(value), allowed)}"
    elif kind not in _SAID_IN_FULL and isinstance(value, str | int | float | None):
        said = f"{said[:1].lower()}{said[1:]}, got {_spelt(value)}"
    return problem(places.value(path), path, said)


def _spelt(value: str | int | float | None) -> str:
    if isinstance(value, str):
        return f"the text '{value}'"
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _written(loc: tuple[int | str, ...], data: object) -> KeyPath:
    """The part of pydantic's location that stands in the recipe; names of union members do not."""
    path: list[str | int] = []
    for step in loc:
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            continue
        path.append(step)
    return tuple(path)


def _keys(model: type[BaseModel], path: KeyPath, data: object) -> list[str]:
    """The keys that are allowed in the mapping at `path`."""
    found, field = model, None
    for step in path:
        data = data[step]  # type: ignore[index]
        if isinstance(step, str):
            field = _fields(found).get(step, field)
        if isinstance(data, dict):
            found = next(_models(field, data), found)
    return list(_fields(found))


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _models(annotation: Any, data: object) -> Iterator[type[BaseModel]]:
    """The models that a field can hold, given what was written there."""
    if isinstance(annotation, FieldInfo):
        for part in (*annotation.metadata, annotation.annotation):
            yield from _models(part, data)
    elif isinstance(annotation, Tagged):
        chosen = data.get(annotation.tag) if isinstance(data, dict) else None
        if chosen in annotation.choices():
            yield annotation.choices()[str(chosen)]
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for part in (*getattr(annotation, "__metadata__", ()), *get_args(annotation)):
            yield from _models(part, data)
