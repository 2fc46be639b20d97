"""A pass of one's own: never prune the attention of the first and the last quarter of the blocks.

surgeon run recipe.yaml --plugin examples/plugins/keep_outer_attention.py ...

    steps:
      - {op: keep_outer_attention, share: 0.25}
      - {op: remove, select: {kind: [ffn, kv_group]}, keep: {fraction: 0.5}, criterion: magnitude}
    export: {layout: per_layer}     # attention then differs from block to block
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surgeon.errors import PassError
from surgeon.graph import Graph, Group
from surgeon.passes import GraphPass, passes


@passes.register("keep_outer_attention")
class KeepOuterAttention(GraphPass):
    """Lock every Group inside the attention of the outermost blocks, at either end of each Stack."""

    op: Literal["keep_outer_attention"] = "keep_outer_attention"
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.25

    def rewrite(self, graph: Graph) -> Graph:
        """The same Graph with those Groups locked."""
        outer = self._outer_attention(graph)
        return graph.map_groups(lambda group: self._lock(group) if group.sublayer in outer else group)

    def ensures(self, before: Graph, after: Graph) -> None:
        """Something was locked: a model without attention is not what this pass is for."""
        if before == after:
            raise PassError("found no attention to lock", hint="leave the step out for this model")

    def _lock(self, group: Group) -> Group:
        return group.lock([f"attention of the outer {self.share:.0%} of the blocks"])

    def _outer_attention(self, graph: Graph) -> set[str]:
        names: set[str] = set()
        for stack in graph.stacks:
            edge = round(len(stack) * self.share)
            for block in stack.blocks[:edge] + stack.blocks[len(stack) - edge :]:
                names.update(part.name for part in block.sublayers if part.role == "attn")
        return names
