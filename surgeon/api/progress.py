"""Progress: how a long verb tells what it is doing. Drawing it is the caller's matter."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int | None], None]
"""Called with the stage in words, what is done of it, and how much there is, where that is known."""


def silent(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""
