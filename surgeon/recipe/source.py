"""YAML or JSON text to plain data with the place of every part. JSON is read as the YAML that it is.

What is here: syntax, duplicate keys, values that no recipe can hold. What the keys mean is checked
later (`surgeon.recipe.recipe`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from surgeon.errors import RecipeError
from surgeon.recipe.place import KeyPath, Place, Places, dotted

__all__ = ["Source", "parse", "parse_value"]


@dataclass(frozen=True)
class Source:
    """The data of a recipe as written, and where each part stands."""

    data: dict[str, Any]
    places: Places = field(default_factory=Places)


def parse(text: str, name: str) -> Source:
    """Read the text of a recipe; `name` is what errors call the file.

    Raises:
        RecipeError: it is not YAML, has a key twice, or is not a mapping.
    """
    loaded = _load(text, name)
    places = Places({(): Place(name, 1, 1)}, {(): Place(name, 1, 1)})
    if not isinstance(loaded, CommentedMap):
        what = "is empty" if loaded is None else f"holds a {_sort(loaded)}, not keys and values"
        raise RecipeError(f"{name}:1:1: the recipe {what}", hint="start with 'surgeon: 1' and 'steps:'")
    return Source(_plain(loaded, (), places), places)


def parse_value(text: str, name: str) -> Any:
    """One value as on the right of a colon in YAML."""
    places = Places({(): Place(name)}, {(): Place(name)})
    return _plain(_load(text, name), (), places)


def _load(text: str, name: str) -> object:
    try:
        return YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        problem = (error.problem or "").split(" with value")[0]
        raise RecipeError(f"{_mark(error, name)}: {problem}", hint="write the key once") from None
    except MarkedYAMLError as error:
        said = "; ".join(part for part in (error.problem, error.context) if part)
        raise RecipeError(f"{_mark(error, name)}: not YAML: {said}") from None
    except YAMLError as error:
        raise RecipeError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None


def _mark(error: MarkedYAMLError, name: str) -> Place:
    mark = error.problem_mark or error.context_mark
    return Place(name) if mark is None else Place(name, mark.line + 1, mark.column + 1)


def _plain(value: object, path: KeyPath, places: Places) -> Any:
    """`value` in plain Python types; fills `places` with what lies inside."""
    if isinstance(value, CommentedSeq):
        return [_item(value, i, path, places) for i in range(len(value))]
    if isinstance(value, CommentedMap):
        return {key: _entry(value, key, path, places) for key in value}
    if isinstance(value, bool | ScalarBoolean):
        return bool(value)
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if value is not None:
        raise RecipeError(
            f"{places.value(path)}: {dotted(path)}: a {_sort(value)} is nothing that a recipe can hold",
            hint="put it in quotes if it is meant as text",
        )
    return None


def _item(value: CommentedSeq, index: int, path: KeyPath, places: Places) -> Any:
    here = (*path, index)
    places.keys[here] = places.values[here] = _moved(places, path, value.lc.data, index)
    return _plain(value[index], here, places)


def _entry(value: CommentedMap, key: object, path: KeyPath, places: Places) -> Any:
    key_place = _moved(places, path, value.lc.data, key)
    if not isinstance(key, str):
        raise RecipeError(
            f"{key_place}: {dotted((*path, str(key)))}: a key must be text, not a {_sort(key)}",
            hint="quote a slice such as '-4:', or the key itself",
        )
    here = (*path, key)
    places.keys[here] = key_place
    places.values[here] = _moved(places, path, value.lc.data, key, 2)
    return _plain(value[key], here, places)


def _moved(places: Places, path: KeyPath, marks: Any, key: object, first: int = 0) -> Place:
    """The place that ruamel noted for a key or, from mark 2 on, for its value."""
    around = places.values[path]
    if not marks or key not in marks or around.line is None:
        return around
    line, column = marks[key][first : first + 2]
    return Place(around.source, line + 1, column + 1)


def _sort(value: object) -> str:
    names = {"CommentedSeq": "list", "CommentedMap": "mapping", "TimeStamp": "date", "datetime": "date"}
    return names.get(type(value).__name__, type(value).__name__)
