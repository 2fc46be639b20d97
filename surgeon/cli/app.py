"""The application: its commands, and what becomes of an error.

Exit status: 0 done, 1 surgery refused or failed (nothing published), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from surgeon.cli.console import complain
from surgeon.errors import SurgeonError

__all__ = ["app"]

DEBUG = "--debug"
INTERRUPTED = 130
STYLE: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "markdown",
}
FILES = {
    "run": "run",
    "plan": "plan",
    "apply": "apply",
    "graph": "graph",
    "check": "check",
    "eval": "evaluate",
    "densify": "densify",
    "verify": "verify",
    "list": "catalogue",
    "schema": "schema",
}
"""Commands, and the files of this package that they lie in."""


class Built(Mapping[str, Any]):
    """Commands by name, each imported and built when it is asked for: a process needs one of them."""

    def __getitem__(self, name: str) -> Any:
        """The command called `name`."""
        return _built(name, FILES[name])

    def __iter__(self) -> Iterator[str]:
        return iter(FILES)

    def __len__(self) -> int:
        return len(FILES)


@cache
def _built(name: str, file: str) -> Any:
    alone = typer.Typer(**STYLE)
    alone.command(name)(importlib.import_module(f"surgeon.cli.{file}").command)
    return get_command(alone)


class Commands(TyperGroup):
    """The commands; a `SurgeonError` of one becomes a message on stderr and an exit status."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = Built()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` out, wherever it stands."""
        ctx.obj = DEBUG in args
        return super().parse_args(ctx, [arg for arg in args if arg != DEBUG])

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SurgeonError as error:
            if ctx.obj:
                raise
            complain(error)
            raise typer.Exit(error.exit_status) from None
        except KeyboardInterrupt:
            if ctx.obj:
                raise
            complain(SurgeonError("interrupted: nothing was published"))
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="surgeon",
    cls=Commands,
    no_args_is_help=True,
    help="Structured surgery on transformer models: from a recipe to a smaller checkpoint that loads "
    "anywhere.",
    **STYLE,
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; ``--debug`` is taken out before the arguments are parsed."""
