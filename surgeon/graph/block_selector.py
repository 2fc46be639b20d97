"""BlockSelector: which Blocks of which Stack a step on the depth of a model may touch.

An unknown Stack or an empty selection is an error that says what exists. Not here: Groups (`selector`).
"""

from __future__ import annotations

from typing import Literal

from surgeon.errors import SelectorError
from surgeon.graph.graph import Graph
from surgeon.graph.selector import BlockRange, blocks_in
from surgeon.graph.stack import Stack, SublayerRole
from surgeon.graph.strict import Strict
from surgeon.registry import nearest

__all__ = ["BlockSelector"]


class BlockSelector(Strict):
    """Blocks of one Stack.

    YAML::

        select: {blocks: "2:-2"}
    """

    stack: str | None = None
    """Container of the Stack; only needed where a model has several."""
    blocks: BlockRange | None = None
    """Blocks by their place in the Stack: a slice in words, a number, or a list of numbers."""
    sublayer: SublayerRole | Literal["attention"] | None = None
    """Not whole Blocks but their sublayers of this role; only where a step says that it can."""

    @property
    def role(self) -> SublayerRole | None:
        """The role that `sublayer` means."""
        return "attn" if self.sublayer == "attention" else self.sublayer

    def stack_of(self, graph: Graph) -> Stack:
        """The Stack that is meant.

        Raises:
            SelectorError: there is none, several and none is named, or none of that name.
        """
        names = [stack.container for stack in graph.stacks]
        if self.stack is not None:
            for stack in graph.stacks:
                if stack.container == self.stack:
                    return stack
            raise SelectorError(
                f"the graph has no stack '{self.stack}'", hint=nearest(self.stack, names), key="stack"
            )
        if len(names) != 1:
            said = ", ".join(
                f"'{name}' of {len(s)} blocks" for name, s in zip(names, graph.stacks, strict=True)
            )
            raise SelectorError(
                f"the model has {len(names)} stacks of residual blocks{': ' + said if said else ''}",
                hint="select: {stack: ...}" if names else "a model whose blocks add to a residual stream",
            )
        return graph.stacks[0]

    def on(self, graph: Graph) -> tuple[str, ...]:
        """Names of the selected Blocks; a list of numbers gives them in its own order.

        Raises:
            SelectorError: nothing is selected.
        """
        stack = self.stack_of(graph)
        found = blocks_in(stack, self.blocks)
        if not found:
            raise SelectorError(
                f"select {self.model_dump(exclude_none=True)} selects nothing",
                hint=f"'{stack.container}' has blocks 0 to {len(stack) - 1}",
            )
        return found
