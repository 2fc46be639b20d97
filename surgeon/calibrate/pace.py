"""Pace: how often an unfinished run puts aside what it has.

Not here: what is put aside (`store`, `unfinished`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SHARE", "Pace"]

SHARE = 10
"""A save is followed by at least so many times as long without one."""


class Pace:
    """When to save next: `interval` seconds after the last time, and later where saving takes long."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due = time.monotonic() + interval

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._due

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save: the time until the next one counts from its end, by how long it took."""
        begin = time.monotonic()
        yield
        end = time.monotonic()
        self._due = end + max(self._interval, SHARE * (end - begin))
