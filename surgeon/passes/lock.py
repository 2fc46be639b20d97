"""The pass `lock`: what it selects is not cut by any later step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surgeon.errors import PassError
from surgeon.graph import Graph, Selector
from surgeon.passes.contract import GraphPass, passes

__all__ = ["Lock"]


@passes.register("lock")
class Lock(GraphPass):
    """Lock the selected Groups for a reason in words.

    YAML::

        - {op: lock, select: {kind: kv_group, blocks: ":2"}, reason: early attention matters}
    """

    op: Literal["lock"] = "lock"
    select: Selector
    reason: Annotated[str, Field(min_length=1)] = "locked by the recipe"

    def rewrite(self, graph: Graph) -> Graph:
        """The same Graph with one more lock on every selected Group."""
        chosen = {group.name for group in self.select.on(graph)}
        return graph.map_groups(lambda g: g.lock([self.reason]) if g.name in chosen else g)

    def ensures(self, before: Graph, after: Graph) -> None:
        """Every selected Group carries the lock."""
        free = [g.name for g in self.select.on(after) if self.reason not in g.locks]
        if free:
            raise PassError(f"left {free} unlocked")
