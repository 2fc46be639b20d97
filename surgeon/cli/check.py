"""``surgeon check``: is this recipe right, and does it fit this model?"""

from __future__ import annotations

from surgeon.cli.arguments import Json, ModelOption, Overrides, Plugins, RecipeFile
from surgeon.cli.console import print_json, say

__all__ = ["command"]


def command(
    recipe: RecipeFile,
    model: ModelOption = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    plugin: Plugins = [],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """Validate a recipe, and with --model what it selects there. Exit status 2 where it is wrong."""
    from surgeon.api.check import check

    selected = check(recipe, model=model, overrides=overrides)
    if json:
        print_json({"recipe": recipe, "model": model, "selected": selected})
        return
    for place, (op, axes) in enumerate(selected):
        what = f" selects {len(axes)} groups: {axes[0]} .. {axes[-1]}" if axes else ""
        say(f"step {place} {op}{what}")
    say(f"{recipe} is a valid recipe" + (f" for {model}" if model else ""))
