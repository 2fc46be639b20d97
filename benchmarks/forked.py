"""A call in a forked child with a time limit: one family can neither hang nor kill the run.

The parent imports transformers once; a fork costs milliseconds. What the child reports before it
dies is kept.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Mapping

__all__ = ["Report", "forked"]

Report = Callable[[Mapping[str, object]], None]
"""The child's way to say something: one JSON object a call."""


def forked(task: Callable[[Report], None], limit: float) -> tuple[list[dict[str, object]], str | None]:
    """Run ``task(report)`` in a child for at most `limit` seconds.

    Returns:
        What the child reported, and None or, where it did not end well, why in words.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(task, writer)
    os.close(writer)
    text, timely = _listen(reader, limit)
    os.close(reader)
    if not timely:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = [json.loads(line) for line in text.decode().splitlines() if line.endswith("}")]
    if not timely:
        return said, f"stopped after {limit:.0f} s"
    if os.WIFSIGNALED(status):
        return said, f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return said, None if os.waitstatus_to_exitcode(status) == 0 else "the child process failed"


def _run(task: Callable[[Report], None], writer: int) -> None:
    """The child's whole life."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    status = 1
    try:
        with os.fdopen(writer, "w", encoding="utf-8", buffering=1) as out:

            def report(words: Mapping[str, object]) -> None:
                out.write(json.dumps(words) + "\n")

            try:
                task(report)
                status = 0
            except BaseException:
                report({"crash": traceback.format_exc(limit=-3)})
    finally:
        os._exit(status)


def _listen(reader: int, limit: float) -> tuple[bytes, bool]:
    """All that was said, and whether the child closed its end in time."""
    deadline = time.monotonic() + limit
    heard = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reader], [], [], left)
        if ready:
            chunk = os.read(reader, 1 << 16)
            if not chunk:
                return heard, True
            heard += chunk
    return heard, False
