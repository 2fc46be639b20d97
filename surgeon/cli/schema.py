"""``surgeon schema``: the JSON Schema of a recipe, with everything that is registered."""

from __future__ import annotations

from surgeon.cli.arguments import Plugins
from surgeon.cli.console import print_json

__all__ = ["command"]


def command(plugin: Plugins = []) -> None:  # noqa: B006 - typer copies it
    """Print the JSON Schema of a recipe, for editors."""
    from surgeon.recipe import recipe_schema

    print_json(recipe_schema())
