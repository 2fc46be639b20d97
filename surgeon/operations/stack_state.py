"""What earlier steps have left of a Stack, for operations on the depth of a model."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.graph import BlockSelector, Graph
from surgeon.operations.state import State
from surgeon.plan import DropBlock, Plan, gone_modules

__all__ = ["block_params", "drops", "left_blocks", "left_parts", "params_below"]


def left_blocks(state: State, select: BlockSelector) -> tuple[str, ...]:
    """Blocks of the Stack that `select` means which no step has dropped, in order, selected or not."""
    stack = select.stack_of(state.graph)
    return tuple(block.name for block in stack.blocks if block.name not in state.plan.dropped)


def left_parts(state: State, select: BlockSelector) -> tuple[str, ...]:
    """Sublayers of the role that `select` means which no step has dropped, in order, selected or not."""
    dropped = state.plan.dropped
    return tuple(
        part.name
        for block in select.stack_of(state.graph).blocks
        if block.name not in dropped
        for part in block.sublayers
        if part.role == select.role and part.name not in dropped
    )


def drops(state: State, names: Sequence[str]) -> tuple[DropBlock, ...]:
    """Edits that drop these Blocks or sublayers; a Block goes whole where nothing of it would be left."""
    gone = {*state.plan.dropped, *names}
    blocks = {part.name: block for block in state.graph.blocks for part in block.sublayers}
    found: dict[str, None] = {}
    for name in names:
        block = blocks.get(name)
        empty = block is not None and all(part.name in gone for part in block.sublayers)
        found[block.name if block is not None and empty else name] = None
    return tuple(DropBlock(name, state.step) for name in found)


def params_below(state: State, name: str) -> tuple[str, ...]:
    """Parameters that would go with a Block or a sublayer."""
    alone = Plan(state.graph.model_type).add([DropBlock(name, state.step)])
    paths = gone_modules(alone, state.graph)
    return tuple(param for path in paths for param in block_params(state.graph, path))


def block_params(graph: Graph, block: str) -> tuple[str, ...]:
    """Parameters below a Block, each storage once and only where its first name lies there."""
    return tuple(
        name
        for name, parameter in graph.parameters.items()
        if name.startswith(f"{block}.") and not parameter.buffer and parameter.tied_to is None
    )
