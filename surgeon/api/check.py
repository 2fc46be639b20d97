"""`check`: is a recipe right, and does it fit a model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from surgeon.api.load_recipe import load_recipe
from surgeon.api.subject import ModelLike
from surgeon.api.trace import trace
from surgeon.recipe import Recipe, check_recipe

__all__ = ["check"]


def check(
    recipe: str | Path | Mapping[str, object] | Recipe,
    *,
    model: ModelLike | None = None,
    overrides: Sequence[str] = (),
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Validate a recipe; with a model, return what each step selects there: its op and its axes.

    Raises:
        RecipeError: one line for every error, each with file, line, column and key.
    """
    read = load_recipe(recipe, overrides)
    return () if model is None else check_recipe(read, trace(model))
