"""`load_recipe`: a Recipe from a file, a text or a mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from surgeon.recipe import Recipe
from surgeon.recipe import load_recipe as read_recipe
from surgeon.registry import load_entry_points

__all__ = ["load_recipe"]


def load_recipe(recipe: str | Path | Mapping[str, object] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe, with the plugins of installed distributions at hand.

    Args:
        recipe: a path; or the text itself, where the string has more than one line; or a mapping.
        overrides: single values to replace, as in ``steps.0.keep.fraction=0.5``.

    Raises:
        RecipeError: one line for every error, each with file, line, column and key.
    """
    load_entry_points()
    return read_recipe(recipe, overrides)
