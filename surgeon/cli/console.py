"""Where things are printed: tables and results on stdout, progress and errors on stderr.

What draws is imported when something is drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from surgeon.errors import SurgeonError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["complain", "print_json", "print_table", "progress", "say", "stage_names", "warn"]

PIPED_WIDTH = 160
FOLDED = 2
"""Spaces before what is left of a line that was too long."""


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else PIPED_WIDTH, highlight=False)


def _mark(mark: str, style: str, message: str) -> None:
    """Print a message on stderr, led by a mark."""
    from rich.text import Text

    _console(sys.stderr).print(Text.assemble((mark, style), message), soft_wrap=not sys.stderr.isatty())


def complain(error: SurgeonError) -> None:
    """Print an error and its hint on stderr, without a traceback."""
    _mark("error: ", "bold red", error.message)
    if error.hint:
        _mark("  try: ", "bold", error.hint)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    _mark("warning: ", "bold yellow", message)


def say(message: str = "", indent: int = 0) -> None:
    """Print a line on stdout: as it is, or folded between words to the width of a terminal."""
    line = " " * indent + message
    if not sys.stdout.isatty():
        print(line)
        return
    print(
        textwrap.fill(
            line,
            shutil.get_terminal_size().columns,
            subsequent_indent=" " * (indent + FOLDED),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def print_json(document: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = ()
) -> None:
    """Print a table on stdout; the columns named in `numbers` are set to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

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
    _console(sys.stdout).print(table)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A function (stage, done, total) that draws a bar per stage on stderr.

    Where stderr is not a terminal, each stage is one line when it begins. Of several processes that a
    launcher started, the first one draws.
    """
    if os.environ.get("RANK", "0") != "0":
        yield lambda stage, done, total: None
        return
    if not sys.stderr.isatty():
        yield stage_names()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = _console(sys.stderr)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        tasks: dict[str, object] = {}

        def draw(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield draw


def stage_names() -> Callable[[str, int, int | None], None]:
    """A function (stage, done, total) that prints the name of every stage on stderr when it begins."""
    seen: set[str] = set()

    def name(stage: str, done: int, total: int | None) -> None:
        if stage not in seen:
            seen.add(stage)
            print(f"{stage} ...", file=sys.stderr)

    return name
