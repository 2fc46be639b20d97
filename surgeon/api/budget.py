"""Budget: what a piece of work takes of memory at its peak, and whether that is allowed, before it begins.

Estimates from shapes, on top of what the process takes already: one Block's weights as they are measured,
what is summed beside them, one tensor and a few pieces where weights are read as they are used. Not here:
whether a whole model may be held (`room`), and what waits in files (`surgeon.io.waiting`).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import nn

from surgeon.api.room import size_measured
from surgeon.errors import InputError
from surgeon.graph import Graph, Selector
from surgeon.io.memory import resident
from surgeon.operations import Operation
from surgeon.plan import Amount
from surgeon.rebuild.unread import PIECE
from surgeon.repair.cholesky import PANEL
from surgeon.repair.refit import Refit

__all__ = ["check_budget", "held_whole", "read_in_use", "streamed_block"]

PIECES = 4
"""Pieces of weights, and results of as much, that a pass with weights read at each use has at once."""
SUMS = 8
"""Bytes of an element of a Gram matrix."""
PANELS = 6
"""Panels of a Gram matrix beside it while it is solved, and what the allocator keeps of earlier ones."""


def check_budget(budget: int | None, needed: int, what: str, hint: str = "") -> None:
    """Refuse `what` where it needs more bytes than `budget`; None: whatever there is.

    Raises:
        InputError: with both numbers.
    """
    if budget is None or needed <= budget:
        return
    enough = f"--memory {-(-needed // 10**8) / 10:.1f}GB"
    raise InputError(
        f"{what} takes about {needed / 1e9:.2f} GB of memory, and {budget / 1e9:.2f} GB are allowed",
        hint=f"{enough}, {hint}" if hint else enough,
    )


def held_whole(module: nn.Module) -> int:
    """Bytes where `module` is loaded to be measured."""
    return resident() + size_measured(module)


def read_in_use(module: nn.Module) -> int:
    """Bytes where each weight of `module` is read when it is used, and proven in float64."""
    largest = max(p.numel() * p.element_size() for p in module.parameters())
    return resident() + 2 * largest + PIECES * PIECE


def streamed_block(graph: Graph, steps: Iterable[object], dtype: torch.dtype) -> int:
    """Bytes where the steps of a recipe measure a model of `dtype` Block by Block."""
    width = torch.promote_types(dtype, torch.float32).itemsize
    block, largest = _block(graph)
    found = [(block + largest) * width]
    for step in steps:
        if isinstance(step, Operation):
            backward = any(key.gradients for key in step.needs())
            if backward:
                found += [4 * block * width]  # weights, gradients, their sum, what is scored
                found += [_largest_outside(graph) * (width + dtype.itemsize)]  # the head, held
            found += [_fit(graph, step)]
    return resident() + max(found) + PIECES * PIECE


def _block(graph: Graph) -> tuple[int, int]:
    """Elements of the largest Block, and of the largest tensor of any."""
    sizes = {
        block.name: [
            prod(parameter.shape)
            for name, parameter in graph.parameters.items()
            if name.startswith(f"{block.name}.")
        ]
        for block in graph.blocks
    }
    largest = max((max(own, default=0) for own in sizes.values()), default=0)
    return max(map(sum, sizes.values()), default=0), largest


def _largest_outside(graph: Graph) -> int:
    """Elements of the largest tensor that lies in no Block."""
    inside = tuple(f"{block.name}." for block in graph.blocks)
    own = [prod(p.shape) for name, p in graph.parameters.items() if not name.startswith(inside)]
    return max(own, default=0)


def _fit(graph: Graph, step: Operation) -> int:
    """Bytes of the widest least squares of a refit: Gram matrices, and what is solved for twice."""
    repair, select, keep = (getattr(step, name, None) for name in ("repair", "select", "keep"))
    if not isinstance(repair, Refit) or not isinstance(select, Selector):
        return 0
    found = [0]
    for group in select.on(graph):
        stays = keep.kept(group.size) if isinstance(keep, Amount) and keep.params is None else group.size
        for site in group.sites:
            shape = graph.parameters[site.param].shape
            if site.role == "consumer" and len(shape) == 2:
                whole = shape[site.dim]
                kept = whole * stays // group.size
                squares = kept**2 if repair.target == "stream" else whole**2 + kept * (whole + kept)
                found.append(
                    SUMS * (squares + 2 * kept * shape[1 - site.dim] + PANELS * min(PANEL, kept) * kept)
                )
    return max(found)
