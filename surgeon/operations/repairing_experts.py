"""Repair experts that lost others, or channels: the last matrices of all that are kept, re-fitted together.

Once experts are gone, tokens go elsewhere; once channels are, each expert gives something else. Block by
block from the front, the kept experts' last matrices are fitted by ridge least squares to what the original
adds to the residual stream, on the states of the model as cut and repaired so far. Not here: repairs of
projections that lost inputs (`repairing`), and what is measured (`surgeon.calibrate.expert_gap`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surgeon.calibrate.expert_gap import expert_gap
from surgeon.calibrate.experts import Experts, experts_of
from surgeon.errors import InfeasibleError
from surgeon.graph.layout import Positions
from surgeon.operations.mending import Mended
from surgeon.operations.repairing import fitted_together
from surgeon.operations.state import State
from surgeon.operations.walks import Walks
from surgeon.plan import Assign, cuts_of
from surgeon.repair import Repair
from surgeon.repair.least_squares import anchored
from surgeon.repair.refit import Refit

__all__ = ["mended_experts"]

_TOKENS = 2048
"""Tokens of one batch of a walk."""

_TOGETHER = 8192
"""Features that one least-squares problem holds; experts beyond go into further ones, one after another."""


@dataclass(frozen=True, eq=False)
class _Cut:
    """Experts of one block, of which `kept` stay; `dim` of the outlet is contracted."""

    experts: Experts
    block: str
    kept: Positions
    dim: int


def mended_experts(repair: Repair, before: State, after: State) -> Mended:
    """What `repair` assigns for the experts that are removed between two States of one step.

    Raises:
        InfeasibleError: the repair is none that experts can have.
    """
    cuts = tuple(_cuts(repair, before, after))
    if not cuts:
        return Mended()
    if not isinstance(repair, Refit):
        raise InfeasibleError(
            f"repair '{repair.repair}' cannot make up for removed experts",
            hint="repair: refit, or repair: none",
        )
    values = _refitted(repair, after, cuts)
    args = repair.model_dump(mode="json", exclude={"repair"})
    edits = tuple(Assign(name, f"repair.{repair.repair}", args, before.step) for name in values)
    return Mended(edits, dict(values), (f"{len(values)} stacks of experts re-fitted together",))


def _cuts(repair: Repair, before: State, after: State) -> Iterator[_Cut]:
    """Experts that lost others, or channels where these are fitted together; front to back."""
    graph, old, new = before.graph, before.plan.kept(), after.plan.kept()
    names = [axis for axis, kept in new.items() if old.get(axis) != kept]
    order = [block.name for block in graph.blocks]
    positions = cuts_of(after.plan, graph)
    found = []
    cut = [group for group in map(graph.group, names) if group.kind in ("expert", "ffn")]
    for experts in experts_of(graph, cut):
        if experts.axis not in names and not fitted_together(repair, experts.outlet, graph):
            continue
        block = graph.group(experts.axis).block
        if block not in order:
            raise InfeasibleError(
                f"'{experts.axis}' lies in no one block of the residual stream",
                hint="repair: none for these experts, in a step of their own",
            )
        inner = [s for name in experts.inner for s in graph.group(name).sites if s.param == experts.outlet]
        every = np.arange(graph.parameters[experts.outlet].shape[0])
        kept = positions.get(experts.outlet, {}).get(0, every)
        found.append(_Cut(experts, block, kept, inner[0].dim))
    yield from sorted(found, key=lambda one: order.index(one.block))


def _refitted(repair: Refit, after: State, cuts: tuple[_Cut, ...]) -> Mapping[str, Tensor]:
    """New outlets by name."""
    walks = Walks.begin(after, after.plan, _TOKENS)
    values: dict[str, Tensor] = {}
    for cut in cuts:
        outlet = cut.experts.outlet
        walks.advance_to(cut.block)
        if repair.target == "layer":
            walks.meet()
        value = _present(after, outlet)
        for kept in _shares(cut, value):
            value = _solved(repair, walks, cut, kept, value)
            walks.put({outlet: value})
        values[outlet] = value
        walks.told()
    return values


def _present(after: State, outlet: str) -> Tensor:
    """The outlet as it is now, removed experts too."""
    assigned = after.plan.values.get(outlet)
    if isinstance(assigned, Tensor):
        return assigned
    if after.source is None:
        raise InfeasibleError("the weights to be repaired were not loaded")
    return after.source.get(outlet)


def _shares(cut: _Cut, value: Tensor) -> Iterator[Tensor]:
    """The kept experts in as few parts as can be solved for together."""
    count = max(_TOGETHER // value.shape[cut.dim], 1)
    parts = -(-len(cut.kept) // count)
    for part in np.array_split(cut.kept, parts):
        yield torch.from_numpy(part).to(value.device)


def _solved(repair: Refit, walks: Walks, cut: _Cut, kept: Tensor, value: Tensor) -> Tensor:
    """`value` with the last matrices of the experts `kept` fitted together."""
    gap = expert_gap(cut.experts.outlet, kept, walks.original(), walks.cut())
    stacked = value.movedim(cut.dim, 1)[kept]
    anchor = stacked.double().flatten(0, 1)
    solved = anchored(gap.gram, gap.cross + gap.gram @ anchor, anchor, repair.ridge)
    new = value.clone()
    new.movedim(cut.dim, 1)[kept] = solved.reshape(stacked.shape).to(value)
    return new
