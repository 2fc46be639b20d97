"""Gauge: one bar of the stage at work with bytes, time left and memory now; then where the time went.

On stderr. For machines, one JSON object a line instead. Where stderr is not a terminal, each stage is one
line when it begins.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from surgeon.cli.console import stage_names

__all__ = ["gauge"]

Told = Callable[[str, int, int | None], None]
PAUSE = 0.2
"""Seconds between two events of one stage."""
SHOWN = 0.1
"""Seconds from which on a stage is worth a place in the summary."""


@contextmanager
def gauge(events: bool = False) -> Iterator[Told]:
    """A function (stage, done, total) that shows how far the stage is; totals are bytes.

    Args:
        events: JSON lines with ``stage``, ``done``, ``total``, ``seconds`` and ``memory`` (bytes).
    """
    if os.environ.get("RANK", "0") != "0":  # of several processes of a launcher, the first one tells
        yield lambda stage, done, total: None
        return
    clock = _Clock()
    with ExitStack() as stack:
        show = _events(clock) if events else stack.enter_context(_shown())

        def told(stage: str, done: int, total: int | None) -> None:
            clock.enter(stage)
            show(stage, done, total)

        yield told
    clock.enter("")
    if events:
        _line({"event": "summary", "seconds": clock.spent, "memory": memory_now()})
    elif clock.summary():
        print(f"time: {clock.summary()}", file=sys.stderr)


class _Clock:
    """Seconds spent in every stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._stage, self._since = "", time.monotonic()

    def enter(self, stage: str) -> None:
        now = time.monotonic()
        name = self._stage or "start"
        self.spent[name] = round(self.spent.get(name, 0.0) + now - self._since, 3)
        self._stage, self._since = stage, now

    def summary(self) -> str:
        return ", ".join(f"{name} {took:.1f} s" for name, took in self.spent.items() if took >= SHOWN)


def memory_now() -> int:
    """Bytes that this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _line(event: dict[str, object]) -> None:
    print(json.dumps(event), file=sys.stderr, flush=True)


def _events(clock: _Clock) -> Told:
    last: dict[str, float] = {}
    begun = time.monotonic()

    def told(stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if stage in last and done != total and now - last[stage] < PAUSE:
            return
        last[stage] = now
        seconds = round(now - begun, 3)
        _line(
            {"event": "progress", "stage": stage, "done": done, "total": total, "seconds": seconds}
            | {"memory": memory_now()}
        )

    return told


@contextmanager
def _shown() -> Iterator[Told]:
    if not sys.stderr.isatty():
        yield stage_names()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr, highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[memory]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, memory="")

        def draw(stage: str, done: int, total: int | None) -> None:
            memory = f"memory {memory_now() / 1e9:.2f} GB"
            bars.update(task, description=stage, completed=done, total=total, memory=memory)

        yield draw
