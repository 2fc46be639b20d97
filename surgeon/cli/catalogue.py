"""``surgeon list``: what recipes can say, with what plugins add."""

from __future__ import annotations

import inspect
from typing import Annotated, Literal

import typer

from surgeon.cli.arguments import Json, Plugins
from surgeon.cli.console import print_json, print_table

__all__ = ["command"]

Sort = Literal["operations", "passes", "criteria", "block_criteria", "allocations", "statistics", "metrics"]


def command(
    sort: Annotated[Sort | None, typer.Argument(help="Only these.")] = None,
    json: Json = False,
    plugin: Plugins = [],  # noqa: B006 - typer copies it
) -> None:
    """List operations, passes, criteria (of groups and of blocks), allocations, statistics and metrics."""
    from surgeon.api.catalogue import catalogue

    found = catalogue()
    chosen = {name: found[name] for name in ([sort] if sort else found)}
    if json:
        print_json(
            {
                name: {entry: _first_line(thing) for entry, thing in registry}
                for name, registry in chosen.items()
            }
        )
        return
    for name, registry in chosen.items():
        rows = [(entry, _first_line(thing), registry.origin(entry)) for entry, thing in registry]
        print_table(name, ("name", "what", "where"), rows)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
