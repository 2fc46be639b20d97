"""Several Blocks' tensors made one Block's, by name within the Block.

Matrices are what a fusion is about; vectors (norms, biases) follow a rule of their own. Not here: which
Blocks are fused (`collapse`, `merge`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.operations.stack_state import block_params
from surgeon.operations.state import State

__all__ = ["Fusion", "Vectors", "alike", "difference_sum", "fused", "last", "slerp", "weighted"]

Fusion = Callable[[Sequence[Tensor]], Tensor]
"""From one tensor a Block, in order, to the fused one."""

Vectors = Literal["keep_first", "difference_sum"]


def alike(graph: Graph, blocks: Sequence[str]) -> str | None:
    """Why `blocks` cannot be fused, or None where all have the same tensors."""
    first = _shapes(graph, blocks[0])
    for name in blocks[1:]:
        other = _shapes(graph, name)
        if other != first:
            odd = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
            shapes = f"{odd[0]} is {first.get(odd[0])} and {other.get(odd[0])}"
            return f"'{blocks[0]}' and '{name}' are not alike: {shapes}"
    return None


def fused(state: State, blocks: Sequence[str], matrices: Fusion, vectors: Fusion) -> dict[str, Tensor]:
    """New tensors of the first of `blocks`, those that change, in the dtype that they have.

    Raises:
        InfeasibleError: the Blocks do not have the same tensors.
    """
    reason = alike(state.graph, blocks)
    if reason is not None:
        raise InfeasibleError(reason, hint="select blocks of one sort")
    values: dict[str, Tensor] = {}
    for name in block_params(state.graph, blocks[0]):
        tail = name.removeprefix(blocks[0])
        tensors = [state.weights.get(f"{block}{tail}") for block in blocks]
        wide = [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]
        new = (matrices if tensors[0].ndim > 1 else vectors)(wide).to(tensors[0].dtype)
        if not torch.equal(new, tensors[0]):
            values[name] = new
    return values


def difference_sum(tensors: Sequence[Tensor]) -> Tensor:
    """The first plus all differences from it: ``t0 + sum_k (tk - t0)``."""
    return tensors[0] + sum((other - tensors[0] for other in tensors[1:]), torch.zeros_like(tensors[0]))


def last(tensors: Sequence[Tensor]) -> Tensor:
    """The last one."""
    return tensors[-1]


def weighted(shares: Sequence[float]) -> Fusion:
    """The sum with these shares."""
    return lambda tensors: sum(
        (share * tensor for share, tensor in zip(shares[1:], tensors[1:], strict=True)),
        shares[0] * tensors[0],
    )


def slerp(share: float) -> Fusion:
    """Two tensors on the arc between them, at `share` of the way to the second; Shoemake 1985.

    Where they point (all but) the same way or opposite ways, on the straight line.
    """

    def fuse(tensors: Sequence[Tensor]) -> Tensor:
        one, other = tensors
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        angle = cosine.clamp(-1, 1).arccos()
        if float(angle.sin()) < torch.finfo(one.dtype).eps ** 0.5:
            return weighted((1 - share, share))(tensors)
        ways = ((1 - share) * angle).sin() * one + (share * angle).sin() * other
        return ways / angle.sin()

    return fuse


def _shapes(graph: Graph, block: str) -> dict[str, tuple[int, ...]]:
    return {
        name.removeprefix(f"{block}."): graph.parameters[name].shape for name in block_params(graph, block)
    }
