"""Where measurements, graphs and what is known of configs are kept, unless a folder is named."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_cache"]


def default_cache() -> Path:
    """``$SURGEON_CACHE``, or ``surgeon`` in the user's folder for caches."""
    said = os.environ.get("SURGEON_CACHE")
    if said:
        return Path(said).expanduser()
    above = os.environ.get("XDG_CACHE_HOME")
    return (Path(above) if above else Path.home() / ".cache") / "surgeon"
