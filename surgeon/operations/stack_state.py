"""What earlier steps have left of a Stack, for operations on the depth of a model."""

from __future__ import annotations

from surgeon.graph import BlockSelector, Graph
from surgeon.operations.state import State

__all__ = ["block_params", "left_blocks"]


def left_blocks(state: State, select: BlockSelector) -> tuple[str, ...]:
    """Blocks of the Stack that `select` means which no step has dropped, in order, selected or not."""
    stack = select.stack_of(state.graph)
    return tuple(block.name for block in stack.blocks if block.name not in state.plan.dropped)


def block_params(graph: Graph, block: str) -> tuple[str, ...]:
    """Parameters below a Block, each storage once and only where its first name lies there."""
    return tuple(
        name
        for name, parameter in graph.parameters.items()
        if name.startswith(f"{block}.") and not parameter.buffer and parameter.tied_to is None
    )
