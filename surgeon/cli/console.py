"""Where things are printed: tables and results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from surgeon.errors import SurgeonError

__all__ = ["complain", "print_json", "print_table", "progress", "say", "warn"]

PIPED_WIDTH = 160


def _stdout() -> Console:
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def _stderr() -> Console:
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else PIPED_WIDTH, highlight=False)


def complain(error: SurgeonError) -> None:
    """Print an error and its hint on stderr, without a traceback."""
    console = _stderr()
    console.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("  try: ", "bold"), error.hint), soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    _stderr().print(Text.assemble(("warning: ", "bold yellow"), message), soft_wrap=True)


def say(message: str = "") -> None:
    """Print a line on stdout, as it is."""
    _stdout().print(Text(message), soft_wrap=True)


def print_json(document: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = ()
) -> None:
    """Print a table on stdout; the columns named in `numbers` are set to the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    _stdout().print(table)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A function (stage, done, total) that draws a bar per stage on stderr.

    Where stderr is not a terminal, each stage is one line when it begins. Of several processes that a
    launcher started, the first one draws.
    """
    console = _stderr()
    if os.environ.get("RANK", "0") != "0":
        yield lambda stage, done, total: None
        return
    if not console.is_terminal:
        seen: set[str] = set()

        def name(stage: str, done: int, total: int | None) -> None:
            if stage not in seen:
                seen.add(stage)
                console.print(Text(f"{stage} ..."), soft_wrap=True)

        yield name
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        tasks: dict[str, object] = {}

        def draw(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield draw
