"""Room: whether a model's weights may lie in memory whole, or have to be read as they are used."""

from __future__ import annotations

from torch import nn

from surgeon.io.memory import free_memory

__all__ = ["room_for", "size_measured"]

SHARE = 4
"""Whole models may take one part in so many of the memory that is free."""
WIDE = 4
"""Bytes by which a weight grows while it is measured, in float32 beside its own dtype."""


def size_measured(module: nn.Module) -> int:
    """Bytes of the weights of `module` in their own dtype and in float32 beside it."""
    return sum(p.numel() * (p.element_size() + WIDE) for p in module.parameters())


def room_for(module: nn.Module, budget: int | None = None) -> bool:
    """Whether `module` may be held in memory, in its own dtype and in float32 beside it.

    Args:
        module: with or without storage.
        budget: bytes that the process may take; None: a share of what is free now.
    """
    return size_measured(module) <= (free_memory() // SHARE if budget is None else budget)
