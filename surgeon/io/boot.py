"""Boot: what tells one start of this machine from the next.

Files that were written without waiting for the disk are whole as long as the machine runs, and may not be
after it was started anew. Not here: what is resumed (`copies`, `publish`).
"""

from __future__ import annotations

import uuid
from functools import cache
from pathlib import Path

__all__ = ["boot_id"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """The same in all processes until the machine starts anew; where nothing tells, in this process alone."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())
