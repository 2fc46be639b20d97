"""Which folder a command keeps measurements in, and whether this process is the one that reports."""

from __future__ import annotations

import os
from pathlib import Path

from surgeon.cli.console import warn
from surgeon.errors import InputError

__all__ = ["measurements", "reports"]


def measurements(cache: Path | None, no_cache: bool) -> Path | None:
    """The folder asked for, or the user's own, where that can be written to.

    Raises:
        InputError: a folder was asked for and not to be used.
    """
    from surgeon.io.cache_folder import default_cache

    if no_cache:
        if cache is not None:
            raise InputError("--cache and --no-cache contradict each other", hint="one of them")
        return None
    if cache is not None:
        return cache
    folder = default_cache()
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return folder
    warn(f"measurements are not kept: {above} may not be written to (--cache DIR)")
    return None


def reports() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"
