"""Repair across gaps in the depth: the last projection before a gap takes over what the gap added.

For every run of Blocks that a step dropped, from the front: the output projection of the Block before it
is fitted, by the repair, to the states that the original has behind the run, on the states of the model as
cut and repaired so far. Needs no bias, no training and no change of the config. Implements
`surgeon.repair.Evidence` for that. Not here: projections that lost inputs (`repairing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surgeon.calibrate.bridge import bridge_gap
from surgeon.calibrate.walk import Walk
from surgeon.errors import InfeasibleError
from surgeon.graph import BlockSelector, Graph
from surgeon.operations.repairing import Mended
from surgeon.operations.state import State
from surgeon.plan import Assign, Plan, cuts_of
from surgeon.rebuild import masked
from surgeon.repair import Cut, Gap, Repair

__all__ = ["bridged", "unfit_for_gaps"]

_TOKENS = 4096
"""Tokens of one batch of a walk."""


def unfit_for_gaps(repair: Repair) -> str | None:
    """Why `repair` cannot bridge a gap, or None."""
    if not repair.needs_text or getattr(repair, "target", None) == "stream":
        return None
    return (
        f"repair '{repair.repair}' mends projections that lost inputs; behind a gap in the depth only "
        "repair: {repair: refit, target: stream} can"
    )


def bridged(repair: Repair, select: BlockSelector, before: State, after: State) -> Mended:
    """What `repair` assigns for the Blocks that `after` drops and `before` does not.

    Raises:
        InfeasibleError: no gap can be bridged on this model.
    """
    gone = [name for name in after.plan.dropped if name not in before.plan.dropped]
    if not repair.needs_text or not gone:
        return Mended()
    blocks = tuple(block.name for block in select.stack_of(after.graph).blocks)
    gaps = tuple(_gaps(blocks, after.plan.dropped, gone))
    cuts = {gap[0]: _projection(after, blocks[gap[0]]) for gap in gaps if gap[0] >= 0}
    evidence = _Gaps(after, blocks, {start: end for start, end in gaps if cuts.get(start)})
    done = repair.mend([cut for cut in cuts.values() if cut is not None], evidence)
    notes = (f"{len(done.values)} of {len(gaps)} gaps bridged", *evidence.notes)
    if not done.values:
        raise InfeasibleError(
            f"none of {len(gaps)} gaps can be bridged: {'; '.join(evidence.notes) or 'they start the stack'}",
            hint="repair: none",
        )
    args = repair.model_dump(mode="json", exclude={"repair"})
    edits = tuple(Assign(name, f"repair.{repair.repair}", args, after.step) for name in done.values)
    return Mended(edits, dict(done.values), (*notes, *done.notes))


def _gaps(blocks: Sequence[str], dropped: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Place of the Block before each gap with a new drop in it (-1: none), and of the last one in it."""
    start = -1
    for place, name in enumerate(blocks):
        if name not in dropped:
            start = place
        elif place + 1 == len(blocks) or blocks[place + 1] not in dropped:
            if any(name in new for name in blocks[start + 1 : place + 1]):
                yield start, place


def _projection(state: State, block: str) -> Cut | None:
    """The last plain matrix of the Block that writes to the stream, with the inputs that are left of it."""
    graph = state.graph
    order = {part.name: place for place, part in enumerate(graph.block(block).sublayers)}
    found: list[tuple[int, Cut]] = []
    for group in graph.groups:
        if group.block != block or group.kind not in ("ffn", "kv_group", "q_per_kv", "channel"):
            continue
        for site in group.sites:
            shape = graph.parameters[site.param].shape
            if site.role == "consumer" and len(shape) == 2 and _writes(graph, site.param, 1 - site.dim):
                kept = (
                    cuts_of(state.plan, graph).get(site.param, {}).get(site.dim, np.arange(shape[site.dim]))
                )
                cut = Cut(site.param, site.dim, kept, kept[:0], block)
                found.append((order.get(group.sublayer or "", -1), cut))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _writes(graph: Graph, param: str, dim: int) -> bool:
    """Whether that dim of the parameter produces the residual stream."""
    streams = {stack.axis for stack in graph.stacks}
    return any(group.name in streams and site.dim == dim for group, site in graph.sites[param])


@dataclass(eq=False)
class _Gaps:
    """Both walks through one Stack; `ends` gives the last place of the gap behind each Block."""

    state: State
    blocks: tuple[str, ...]
    ends: Mapping[int, int]

    def __post_init__(self) -> None:
        self.bench = self.state.trial()
        self.plan = self.state.plan
        self.notes: list[str] = []

    def tensor(self, name: str) -> Tensor:
        return self.state.weights.get(name)

    def means(self, cuts: Sequence[Cut]) -> Mapping[str, Tensor]:
        return {}

    def grams(self, cuts: Sequence[Cut], constant: bool) -> Mapping[str, Tensor]:
        return {}

    def along_stream(
        self, cuts: Sequence[Cut], constant: bool, mend: Callable[[Cut, Gap], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Gap by gap from the front; each repair changes what the next one starts from."""
        samples = self.bench.samples
        size = max(1, _TOKENS // samples.ids.shape[1])
        whole = masked(self.bench.module, Plan(self.plan.model_type), self.state.graph).fixed()
        aim = Walk.begin(self.bench.module, self.blocks, samples, size, whole)
        have = aim.beside(self._forward(0))
        values: dict[str, Tensor] = {}
        for cut in cuts:
            place = self.blocks.index(cut.block or "")
            self._advance(have, place)
            while aim.at <= self.ends[place]:
                aim.advance(whole)
            found = bridge_gap(cut.param, torch.from_numpy(cut.kept), aim.states, have, self._forward(place))
            if found is None:
                self.notes.append(f"what '{cut.param}' gives does not simply join the stream; left as it is")
                continue
            new = mend(cut, Gap(*found))
            values |= new
            self.plan = self.plan.add([Assign(name, "repair") for name in new], new)
            self.bench.told("bridge gaps", place + 1, len(self.blocks))
        return values

    def _advance(self, have: Walk, place: int) -> None:
        while have.at < place:
            if self.blocks[have.at] in self.plan.dropped:
                have.step_over()
            else:
                have.advance(self._forward(have.at))

    def _forward(self, at: int) -> Callable[..., object]:
        """The cut model, to run the Block at `at`."""
        unused = self.blocks[:at] + self.blocks[at + 1 :]
        return masked(self.bench.module, self.plan, self.state.graph).fixed(unused)
