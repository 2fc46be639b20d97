"""The application: its commands, and what becomes of an error.

Exit status: 0 done, 1 surgery refused or failed (nothing published), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from surgeon.cli import apply, catalogue, check, densify, evaluate, graph, plan, run, schema, verify
from surgeon.cli.console import complain
from surgeon.errors import SurgeonError

__all__ = ["app"]

DEBUG = "--debug"
INTERRUPTED = 130


class Commands(TyperGroup):
    """Commands whose `SurgeonError` becomes a message on stderr and an exit status."""

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
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Structured surgery on transformer models: from a recipe to a smaller checkpoint that loads "
    "anywhere.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; ``--debug`` is taken out before the arguments are parsed."""


app.command("run")(run.command)
app.command("plan")(plan.command)
app.command("apply")(apply.command)
app.command("graph")(graph.command)
app.command("check")(check.command)
app.command("eval")(evaluate.command)
app.command("densify")(densify.command)
app.command("verify")(verify.command)
app.command("list")(catalogue.command)
app.command("schema")(schema.command)
