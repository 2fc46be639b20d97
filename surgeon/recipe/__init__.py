"""YAML or JSON text to a validated Recipe, with line numbers in errors; checks against a Graph; schema."""

from surgeon.recipe.check import check_recipe
from surgeon.recipe.load import load_recipe
from surgeon.recipe.recipe import Calibration, Evaluation, Export, Recipe, Step
from surgeon.recipe.schema import recipe_schema
from surgeon.recipe.texts import TextSource

__all__ = [
    "Calibration",
    "Evaluation",
    "Export",
    "Recipe",
    "Step",
    "TextSource",
    "check_recipe",
    "load_recipe",
    "recipe_schema",
]
