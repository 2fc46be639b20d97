"""Carry out the repair of a step: measure what it asks for, and put what it gives into the Plan.

Implements `surgeon.repair.Evidence` on a State: statistics of the model as the steps before left it, and,
for repairs toward the residual stream, two walks through the model, of the original and of the masked view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from surgeon.calibrate.experts import experts_of
from surgeon.calibrate.gap import stream_gap
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.operations.state import State
from surgeon.operations.walks import Walks
from surgeon.plan import Assign, Edit, Plan
from surgeon.repair import Cut, Gap, Repair, cuts_made
from surgeon.repair.refit import Refit

__all__ = ["Mended", "fitted_together", "mended", "repaired"]

_TOKENS = 4096
"""Tokens of one batch of a walk."""


@dataclass(frozen=True)
class Mended:
    """Edits that assign what a repair computed, their tensors, and what is worth saying."""

    edits: tuple[Assign, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def then(self, other: Mended) -> Mended:
        """Both, one after the other."""
        return Mended(
            (*self.edits, *other.edits), {**self.values, **other.values}, (*self.notes, *other.notes)
        )

    def on(self, edits: Sequence[Edit]) -> tuple[tuple[Edit, ...], dict[str, object]]:
        """`edits` and these, with their tensors."""
        return (*edits, *self.edits), dict(self.values)


def repaired(repair: Repair, before: State, after: State) -> Mended:
    """What `repair` assigns for the cuts that lie between two States of one step.

    Raises:
        InfeasibleError: the repair cannot be made on this model.
    """
    if not repair.needs_text:
        return Mended()
    return mended(repair, cuts_made(before.plan, after.plan, before.graph), before, after.plan)


def mended(repair: Repair, cuts: Sequence[Cut], before: State, cut: Plan) -> Mended:
    """What `repair` assigns for `cuts`, save those of experts that are fitted together.

    Args:
        repair: what mends.
        cuts: projections, front to back.
        before: the State whose weights and statistics count.
        cut: the Plan with the cuts.

    Raises:
        InfeasibleError: the repair cannot be made on this model.
    """
    cuts = [one for one in cuts if not (one.slices and fitted_together(repair, one.param, before.graph))]
    if not cuts:
        return Mended()
    if getattr(repair, "reach", "gap") != "gap":
        raise InfeasibleError(
            f"reach: {repair.model_dump()['reach']} is about gaps in the depth, and this step makes none",
            hint="leave reach out",
        )
    refusal = repair.refuse(cuts)
    if refusal is not None:
        raise InfeasibleError(
            f"repair '{repair.repair}': {refusal}", hint="repair: {repair: refit, constant: false}"
        )
    done = repair.mend(cuts, _Evidence(before, cut))
    args = repair.model_dump(mode="json", exclude={"repair"})
    edits = tuple(Assign(name, f"repair.{repair.repair}", args, before.step) for name in done.values)
    return Mended(edits, dict(done.values), done.notes)


def fitted_together(repair: Repair, param: str, graph: Graph) -> bool:
    """Whether `param` is the last stack of routed experts, which a refit toward the stream fits as one."""
    if not isinstance(repair, Refit) or repair.target != "stream":
        return False
    counts = [group for group, _ in graph.sites[param] if group.kind == "expert"]
    return any(experts.outlet == param for experts in experts_of(graph, counts))


@dataclass(frozen=True)
class _Evidence:
    """The State before the cut, and the Plan with it."""

    before: State
    cut: Plan

    def tensor(self, name: str) -> Tensor:
        return self.before.weights.get(name)

    def means(self, cuts: Sequence[Cut]) -> Mapping[str, Tensor]:
        return self._measured(InputMoment("mean", _params(cuts)))

    def grams(self, cuts: Sequence[Cut], constant: bool) -> Mapping[str, Tensor]:
        return self._measured(Gram(constant, _params(cuts)))

    def _measured(self, key: InputMoment | Gram) -> Mapping[str, Tensor]:
        return self.before.statistics({key}).get(key) if key.params else {}

    def along_stream(
        self, cuts: Sequence[Cut], constant: bool, mend: Callable[[Cut, Gap], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        if not cuts:
            return {}
        walks = Walks.begin(self.before, self.cut, _TOKENS)
        values: dict[str, Tensor] = {}
        for block, here in groupby(cuts, key=lambda cut: cut.block):
            walks.advance_to(block)
            for cut in here:
                kept, with_bias = torch.from_numpy(cut.kept), constant and cut.bias is not None
                gap = stream_gap(cut.param, kept, with_bias, walks.original(), walks.cut())
                found = mend(cut, Gap(gap.gram, gap.cross, gap.joined))
                values |= found
                walks.put(found)
            walks.told()
        return values


def _params(cuts: Sequence[Cut]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cut.param for cut in cuts))
