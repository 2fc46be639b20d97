"""Room: whether a model's weights may lie in memory whole, or have to be read as they are used."""

from __future__ import annotations

from pathlib import Path

from torch import nn

__all__ = ["free_memory", "room_for"]

SHARE = 4
"""Whole models may take one part in so many of the memory that is free."""
WIDE = 4
"""Bytes by which a weight grows while it is measured, in float32 beside its own dtype."""


def room_for(module: nn.Module, budget: int | None = None) -> bool:
    """Whether `module` may be held in memory, in its own dtype and in float32 beside it.

    Args:
        module: with or without storage.
        budget: bytes that the process may take; None: a share of what is free now.
    """
    needed = sum(p.numel() * (p.element_size() + WIDE) for p in module.parameters())
    return needed <= (free_memory() // SHARE if budget is None else budget)


def free_memory() -> int:
    """Bytes that a process could take without swapping; a container's own limit is minded."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    return free
