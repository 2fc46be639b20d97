"""A Recipe from a file, a text or a dict: read, extend, override, validate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from pydantic import ValidationError

from surgeon.errors import RecipeError
from surgeon.recipe.compose import extended, overridden, read_recipe_file
from surgeon.recipe.place import Places
from surgeon.recipe.problems import problem, refusal_of
from surgeon.recipe.recipe import RECIPE_VERSION, Recipe
from surgeon.recipe.source import Source, parse

__all__ = ["load_recipe"]


def load_recipe(recipe: str | Path | Mapping[str, object] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        recipe: a path; or the text itself, where the string has more than one line; or a mapping; or a
            Recipe, which only `overrides` can change.
        overrides: single values to replace, as in ``steps.0.keep.fraction=0.5``.

    Raises:
        RecipeError: one line for every error, each with file, line, column and key.
    """
    source, file = _read(recipe)
    _check_version(source)
    source = extended(source, file)
    for override in overrides:
        source = overridden(source, override)
    try:
        made = Recipe.model_validate(source.data)
    except ValidationError as error:
        raise refusal_of(error, Recipe, source.data, source.places) from None
    made._places = source.places
    return made


def _read(recipe: str | Path | Mapping[str, object] | Recipe) -> tuple[Source, Path | None]:
    if isinstance(recipe, Recipe):
        return Source(recipe.to_dict(), recipe._places), None
    if isinstance(recipe, Mapping):
        return Source(deepcopy(dict(recipe)), Places()), None
    if isinstance(recipe, str) and "\n" in recipe:
        return parse(recipe, "recipe"), None
    return read_recipe_file(Path(recipe)), Path(recipe)


def _check_version(source: Source) -> None:
    """The version comes first: what other keys mean depends on it."""
    place, right = source.places.value(("surgeon",)), f"surgeon: {RECIPE_VERSION}"
    if "surgeon" not in source.data:
        raise RecipeError(problem(place, (), "the key 'surgeon' is missing"), hint=right)
    version = source.data["surgeon"]
    if version is True or version != RECIPE_VERSION:
        what = f"version {version!r} of the recipe format is unknown"
        raise RecipeError(problem(place, ("surgeon",), what), hint=right)
