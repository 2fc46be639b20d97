"""What removing experts must heed: the top-k of their router, and which axes are routing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from surgeon.errors import InfeasibleError
from surgeon.graph import Group
from surgeon.operations.pool import Counts, Pool

__all__ = ["TopK", "heed_top_k", "is_routing_group"]

TopK = Literal["keep", "clamp"]


def is_routing_group(group: Group) -> bool:
    """Whether a router first chooses among these, and then among the experts within."""
    return group.kind == "channel" and group.picked > 0


def heed_top_k(pools: Sequence[Pool], counts: Counts, top_k: TopK) -> tuple[str, ...]:
    """Notes on routers that will take fewer experts a token than they did.

    Raises:
        InfeasibleError: fewer experts would stay than a token takes, and `top_k` is to be kept.
    """
    short = {
        (m.group.picked, count): m.group.name
        for pool, count in zip(pools, counts, strict=True)
        for m in pool.members
        if count < m.group.picked
    }
    if short and top_k == "keep":
        (picked, count), name = next(iter(short.items()))
        raise InfeasibleError(
            f"'{name}' would keep {count}, and its router takes {picked} at once",
            hint=f"keep at least {picked}, or top_k: clamp",
        )
    return tuple(f"top-k of routers clamped from {picked} to {count}" for picked, count in short)
