"""Gauge: one bar of the stage at work with bytes, time left and memory now; then where the time went.

On stderr. For machines, one JSON object a line instead. Where stderr is not a terminal, each stage is one
line when it begins.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from surgeon.cli.console import stage_names

__all__ = ["Gauge", "gauge"]

Told = Callable[[str, int, int | None], None]
PAUSE = 0.2
"""Seconds between two events of one stage."""
SHOWN = 0.1
"""Seconds from which on a stage is worth a place in the summary."""
START, REPORT = "start", "report"
"""What is done before the first stage, and behind the last one."""
BEGAN = 19
"""Place, behind the name of a process, of when it began, in what the system tells of it."""


class Gauge:
    """Called with stage, done and total, it shows how far the stage is; totals are bytes."""

    def __init__(self, show: Told, hide: Callable[[], None]) -> None:
        self._show, self._hide = show, hide
        self._stage, self._since = START, time.monotonic() - running()
        self.spent: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """`done` of `total` of a stage is done."""
        self.enter(stage)
        self._show(stage, done, total)

    def rest(self) -> None:
        """Show nothing any more: what is left is to print results."""
        self.enter(REPORT)
        self._hide()

    def enter(self, stage: str) -> None:
        """What follows is `stage`."""
        now = time.monotonic()
        self.spent[self._stage] = round(self.spent.get(self._stage, 0.0) + now - self._since, 3)
        self._stage, self._since = stage, now

    def summary(self) -> str:
        """Where the time went, from the start of the process on."""
        parts = ", ".join(f"{name} {took:.1f} s" for name, took in self.spent.items() if took >= SHOWN)
        return f"{sum(self.spent.values()):.1f} s: {parts}"


@contextmanager
def gauge(events: bool = False) -> Iterator[Gauge]:
    """Shows stages while the context is open; says where the time went when it is closed.

    Args:
        events: JSON lines with ``stage``, ``done``, ``total``, ``seconds`` and ``memory`` (bytes).
    """
    if os.environ.get("RANK", "0") != "0":  # of several processes of a launcher, the first one tells
        yield Gauge(lambda stage, done, total: None, lambda: None)
        return
    with ExitStack() as stack:
        show = _events() if events else stack.enter_context(_shown())
        told = Gauge(show, stack.close)
        yield told
    told.enter("")
    if events:
        _line({"event": "summary", "seconds": told.spent, "memory": memory_now()})
    else:
        print(f"time: {told.summary()}", file=sys.stderr)


def running() -> float:
    """Seconds since this process began."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[BEGAN])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def memory_now() -> int:
    """Bytes that this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _line(event: Mapping[str, object]) -> None:
    print(json.dumps(event), file=sys.stderr, flush=True)


def _events() -> Told:
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
