"""The pass `unlock`: lifts exactly one reason, where a person knows better than the tracer.

Other reasons stay. The result is still verified like every cut before it is published.
"""

from __future__ import annotations

from typing import Literal

from surgeon.errors import PassError
from surgeon.graph import Graph, Selector
from surgeon.passes.contract import GraphPass, passes
from surgeon.registry import nearest

__all__ = ["Unlock"]


@passes.register("unlock")
class Unlock(GraphPass):
    """Lift one reason from the selected Groups that have it.

    YAML::

        - {op: unlock, select: {kind: kv_group}, reason: locked by the recipe}
    """

    op: Literal["unlock"] = "unlock"
    select: Selector
    reason: str

    def requires(self, graph: Graph) -> None:
        """Some selected Group is locked for that reason."""
        reasons = sorted({reason for group in self.select.on(graph) for reason in group.locks})
        if not reasons:
            raise PassError("nothing of what it selects is locked", hint="leave the step out")
        if self.reason not in reasons:
            raise PassError(f"nothing is locked for '{self.reason}'", hint=nearest(self.reason, reasons))

    def rewrite(self, graph: Graph) -> Graph:
        """The same Graph without that reason on the selected Groups."""
        chosen = {group.name for group in self.select.on(graph)}
        return graph.map_groups(lambda g: g.unlock(self.reason) if g.name in chosen else g)

    def lifts(self) -> frozenset[str]:
        """The one reason."""
        return frozenset({self.reason})
