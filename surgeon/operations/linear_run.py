"""A run of Blocks replaced by a linear map of the residual stream, folded into what stands before it.

Between two Blocks such a map has no place: norms read the stream and the residual path hands it on as it
is. At the start of a Stack it has one, in the tables that the stream is looked up in, if nothing but the
Stack reads them. Not here: Blocks that learn a run (`replace`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from surgeon.calibrate.gram import block_gram
from surgeon.errors import InfeasibleError
from surgeon.graph import BlockSelector, Graph
from surgeon.operations.operation import Proposal
from surgeon.operations.state import State
from surgeon.operations.walks import Walks
from surgeon.plan import Assign
from surgeon.repair.least_squares import anchored

__all__ = ["folded"]

_RIDGE = 1e-4
"""Pull toward the identity, relative to the mean square of the states."""

_TOKENS = 4096
"""Tokens of one batch of a walk."""

_TOLERANCE = 1e-4
"""Difference, relative to the largest state, that rounding may make where the fold is exact."""

_ELSEWHERE = "replace: layer trains a block in the place of the run wherever it lies"


def folded(state: State, cut: Proposal, select: BlockSelector) -> Proposal:
    """New tables, such that the Stack without its first Blocks starts on the mapped states.

    Raises:
        InfeasibleError: the run does not start the Stack, or the map cannot be folded exactly.
    """
    stack = select.stack_of(state.graph)
    after = state.after(cut.edits)
    gone = [block.name in after.plan.dropped for block in stack.blocks]
    count = gone.index(False)
    if any(gone[count:]):
        name = stack.blocks[gone.index(True, count)].name
        raise InfeasibleError(
            f"a linear map in the place of '{name}' would stand between blocks, and neither of them can "
            "take it in exactly",
            hint=f"drop: {list(range(sum(gone)))}, the start of the stack; {_ELSEWHERE}",
        )
    tables = _tables(state.graph, stack.axis)
    walks = Walks.begin(state, after.plan, _TOKENS, tuple(block.name for block in stack.blocks))
    entering = list(walks.original()[0].states)
    wanted = walks.original_behind(count - 1)
    mapped = _least_squares(entering, wanted)
    values: dict[str, Tensor] = {}
    for name in tables:
        table = state.weights.get(name)
        values[name] = (table.double() @ mapped.to(table.device)).to(table)
    _check(walks, values, [x.double() @ mapped.to(x.device) for x in entering])
    args = {"run": [block.name for block in stack.blocks[:count]], "ridge": _RIDGE}
    edits = tuple(Assign(name, "replace.linear", args, state.step) for name in values)
    note = f"{count} blocks became a linear map, which {', '.join(tables)} took in"
    return Proposal(edits, notes=(note,), values=values)


def _tables(graph: Graph, axis: str | None) -> tuple[str, ...]:
    """What the stream is looked up in before the first Block; each is read by nothing else."""
    blocks = tuple(f"{block.name}." for block in graph.blocks)
    sites = graph.group(axis).sites if axis else ()
    found = tuple(
        site.param for site in sites if site.role == "producer" and not site.param.startswith(blocks)
    )
    ties = {p.name: p.tied_to or p.name for p in graph.parameters.values()}
    for name in found:
        others = [other for other, root in ties.items() if root == ties[name] and other != name]
        if others:
            raise InfeasibleError(
                f"'{name}' cannot take a linear map in: it is one tensor with '{others[0]}'", hint=_ELSEWHERE
            )
    if not found:
        raise InfeasibleError("nothing before the stack can take a linear map in", hint=_ELSEWHERE)
    return found


def _least_squares(entering: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """The map [hidden, hidden] from one to the other, anchored at the identity, float64."""
    gram = cross = torch.zeros((), dtype=torch.float64)
    for x, y in zip(entering, wanted, strict=True):
        a, b = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        gram, cross = gram + block_gram(a), cross + block_gram(a, b)
    return anchored(gram, cross, torch.eye(len(gram), dtype=torch.float64, device=gram.device), _RIDGE)


def _check(walks: Walks, values: Mapping[str, Tensor], want: list[Tensor]) -> None:
    """Refuse where the Stack does not start on the mapped states: something stands behind the tables."""
    got = walks.entering(values)
    apart = max(float((g.double() - w).abs().max() / w.abs().max()) for g, w in zip(got, want, strict=True))
    if not apart <= _TOLERANCE:
        raise InfeasibleError(
            f"the linear map cannot be folded exactly: with it in {', '.join(values)} the stack starts on "
            f"states that are {apart:.2g} of the largest apart from the mapped ones (a norm, most likely)",
            hint=_ELSEWHERE,
        )
