"""A recipe on top of another (``extends:``) and single values on top of both (``--set``)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from surgeon.errors import RecipeError
from surgeon.recipe.place import KeyPath, Place, Places, dotted
from surgeon.recipe.source import Source, parse, parse_value

__all__ = ["extended", "overridden", "read_recipe_file"]


def read_recipe_file(path: Path) -> Source:
    """Read one recipe file.

    Raises:
        RecipeError: missing, not text, or not a recipe's YAML.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: this is a folder, not a recipe", hint="name the file in it") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None


def extended(source: Source, file: Path | None, below: tuple[Path, ...] = ()) -> Source:
    """`source` laid over the recipe that its ``extends:`` names, if any, and so on downwards.

    Mappings merge key by key; everything else, lists included, is replaced.

    Args:
        source: the recipe on top.
        file: where it was read, from where a relative path starts; None: the working directory.
        below: the files on the way here, to find a circle.
    """
    if "extends" not in source.data:
        return source
    named, place = source.data["extends"], source.places.value(("extends",))
    if not isinstance(named, str):
        raise RecipeError(f"{place}: extends: expected the path of a recipe, got {named!r}")
    path = file.parent / named if file is not None else Path(named)
    chain = (*below, file.resolve()) if file is not None else below
    if path.resolve() in chain:
        circle = " -> ".join(str(link) for link in (*chain, path.resolve()))
        raise RecipeError(f"{place}: extends: the recipes extend each other in a circle: {circle}")
    try:
        base = extended(read_recipe_file(path), path, chain)
    except RecipeError as error:
        error.message = f"{error.message}\n{place}: extends: named here"
        raise
    top = {key: value for key, value in source.data.items() if key != "extends"}
    return _laid_over(Source(top, source.places), base)


def overridden(source: Source, override: str) -> Source:
    """`source` with one value replaced, as in ``steps.0.keep.fraction=0.5``.

    The right side is YAML. A bare word on the way, as in ``criterion: taylor``, becomes the tagged
    object that it is short for. Whether the key may exist is checked with all others.

    Raises:
        RecipeError: no ``=``, a list position that is no number or does not exist, or bad YAML.
    """
    written, equals, text = override.partition("=")
    origin = f"--set {override}"
    keys = written.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"{origin}: expected PATH=VALUE", hint="--set steps.0.keep.fraction=0.5")
    data = copy.deepcopy(source.data)
    path: KeyPath = ()
    around: Any = data
    made: list[KeyPath] = []
    for key in keys[:-1]:
        step = _position(around, key, path, origin)
        path = (*path, step)
        if isinstance(around, dict):
            if step not in around:
                around[step] = {}
                made.append(path)
            if isinstance(around[step], str):
                around[step] = {key: around[step]}
        around = around[step]
    last = _position(around, keys[-1], path, origin)
    around[last] = parse_value(text, origin)
    path = (*path, last)
    at = dict.fromkeys([*made, path], Place(origin))
    return Source(data, Places(at, dict(at)).over(source.places.without(path)))


def _position(around: object, key: str, path: KeyPath, origin: str) -> str | int:
    """`key` as what indexes `around`."""
    where = dotted(path)
    if isinstance(around, dict):
        return key
    if not isinstance(around, list):
        raise RecipeError(f"{origin}: '{where}' is {around!r}, which has no '{key}'")
    if not key.isdecimal() or int(key) >= len(around):
        raise RecipeError(
            f"{origin}: '{where}' is a list of {len(around)}, it has no '{key}'",
            hint=f"a number from 0 to {len(around) - 1}",
        )
    return int(key)


def _laid_over(top: Source, base: Source, path: KeyPath = ()) -> Source:
    data, places = dict(base.data), base.places
    for key, value in top.data.items():
        below = data.get(key)
        here = (*path, key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged = _laid_over(Source(value, Places()), Source(below, places), here)
            data[key], places = merged.data, merged.places
        else:
            data[key], places = value, places.without(here)
    return Source(data, top.places.over(places))
