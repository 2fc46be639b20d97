"""The one rebuild: named tensors and a Plan in, the smaller model's named tensors out.

Tensor by tensor, so that a module in memory and a folder of shards are two sources and a module and a
shard writer two sinks. Not here: why something is cut (`surgeon.criteria`), and the config of what
comes out (`config_solve`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.graph.layout import Positions
from surgeon.plan import Plan, cuts_of, gone_modules
from surgeon.rebuild.tensors import TensorSource
from surgeon.rebuild.unread import described_like

__all__ = ["members_of", "rebuild", "renamed"]


def rebuild(source: TensorSource, plan: Plan, graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """Stream the smaller model's tensors: assigned, then cut, then renamed past dropped blocks.

    Every tensor comes out contiguous and owns its storage, in the source's dtype; names that are tied
    in the traced model come out with one shared tensor. Nothing else of the source is kept in memory.

    Args:
        source: the traced model's tensors.
        plan: what to do, in the index space of the traced model.
        graph: the traced model.

    Yields:
        Name in the smaller module, and tensor.

    Raises:
        RebuildError: tied names are cut differently, or an assigned value has another shape.
    """
    cuts = cuts_of(plan, graph)
    names = renamed(source.names(), plan, graph)
    roots = {name: _root(name, graph) for name in names}
    _check_tied(roots, cuts)
    values = {_root(name, graph): value for name, value in plan.values.items()}
    pending = _counts(roots)
    shared: dict[str, Tensor] = {}
    for old, new in names.items():
        root = roots[old]
        tensor = shared.pop(root, None)
        if tensor is None:
            tensor = _cut(_assigned(source.get(old), old, values.get(root)), cuts.get(old, {}))
        pending[root] -= 1
        if pending[root]:
            shared[root] = tensor
        yield new, tensor


def renamed(names: tuple[str, ...], plan: Plan, graph: Graph) -> dict[str, str]:
    """Old name to new name of every tensor that survives `plan`.

    What lies under a dropped Block or sublayer is left out; later Blocks of the same container move up.
    """
    dropped = set(gone_modules(plan, graph))
    moves: dict[str, str] = {}
    for stack in graph.stacks:
        gone = [_place(block.name) for block in stack.blocks if block.name in dropped]
        for name in members_of(stack.container, graph) if gone else ():
            place = _place(name)
            fewer = sum(other < place for other in gone)
            if fewer and name not in dropped:
                moves[name] = f"{stack.container}.{place - fewer}"
    found: dict[str, str] = {}
    for name in names:
        prefixes = _prefixes(name)
        if not any(prefix in dropped for prefix in prefixes):
            moved = next((prefix for prefix in prefixes if prefix in moves), None)
            found[name] = name if moved is None else moves[moved] + name[len(moved) :]
    return found


def members_of(container: str, graph: Graph) -> tuple[str, ...]:
    """Module paths of the numbered members of a container that hold tensors, Blocks or not, in order."""
    head = f"{container}."
    steps = {name[len(head) :].partition(".")[0] for name in graph.parameters if name.startswith(head)}
    return tuple(f"{head}{step}" for step in sorted(filter(str.isdigit, steps), key=int))


def _place(block: str) -> int:
    leaf = block.rpartition(".")[2]
    if not leaf.isdigit():
        raise RebuildError(
            f"block '{block}' has no number in its container, so the blocks after it cannot move up"
        )
    return int(leaf)


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _root(name: str, graph: Graph) -> str:
    known = graph.parameters.get(name)
    return name if known is None or known.tied_to is None else known.tied_to


def _counts(roots: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for root in roots.values():
        counts[root] = counts.get(root, 0) + 1
    return counts


def _check_tied(roots: Mapping[str, str], cuts: Mapping[str, Mapping[int, Positions]]) -> None:
    for name, root in roots.items():
        own, first = cuts.get(name, {}), cuts.get(root, {})
        if own.keys() != first.keys() or any(own[dim].tolist() != first[dim].tolist() for dim in own):
            raise RebuildError(
                f"'{name}' is the same tensor as '{root}', but the plan cuts them differently",
                hint="cut both axes by the same indices, or untie the weights first",
            )


def _assigned(tensor: Tensor, name: str, value: object) -> Tensor:
    if value is None:
        return tensor
    if not isinstance(value, Tensor) or value.shape != tensor.shape:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise RebuildError(f"the value assigned to '{name}' is {got}, the tensor is {list(tensor.shape)}")
    return described_like(tensor, value)


def _cut(tensor: Tensor, dims: Mapping[int, Positions]) -> Tensor:
    if not dims:
        return tensor.clone(memory_format=torch.contiguous_format)
    for dim, kept in dims.items():
        tensor = tensor.index_select(dim, torch.from_numpy(kept).to(tensor.device))
    return tensor.contiguous()
