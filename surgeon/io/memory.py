"""How much memory is free, and how much this process takes, as the system says."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["free_memory", "resident"]


def free_memory() -> int:
    """Bytes that a process could take without swapping; a container's own limit is minded."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    return free


def resident() -> int:
    """Bytes of memory that this process takes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
