"""Repair across gaps in the depth: the projections before a gap take over what the gap added.

From the front: the output projections of the Block before a run of dropped Blocks, or of one that lost a
sublayer, are fitted, by the repair, to the states that the original has behind it, on the states of the
model as cut and repaired so far. With ``reach: rest`` those of every later Block are then fitted to the
original's states behind them, which takes away more of the damage. Needs no bias, no training and no
change of the config. Implements `surgeon.repair.Evidence` for that. Not here: projections that lost inputs
(`repairing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from surgeon.calibrate.bench import TOKENS
from surgeon.calibrate.bridge import bridge_gap, end_error
from surgeon.calibrate.gap import states_behind, stream_gap, stream_rows
from surgeon.calibrate.walk import Forward, Walk
from surgeon.graph import BlockSelector, Graph, Stack
from surgeon.operations.mending import Mended
from surgeon.operations.state import State
from surgeon.plan import Assign, Plan, cuts_of, dropped_parts, gone_prefixes
from surgeon.rebuild import masked
from surgeon.repair import Along, Cut, Gap, Repair

__all__ = ["bridges", "gaps_of"]

Mend = Callable[[Cut, Gap], Mapping[str, Tensor]]
_FITTED, _NOTE, _APART = "fitted/", "note/", "apart/"
"""Marks of what is put aside: of one Block, what is to be said of it, and what did not join the stream."""


def bridges(repair: Repair, select: BlockSelector, before: State, after: State) -> Mended:
    """What `repair` assigns for the Blocks that `after` drops and `before` does not.

    Gaps that cannot be bridged on this model are said in the notes.
    """
    gaps = gaps_of(select, before, after)
    if not gaps:
        return Mended()
    blocks = tuple(block.name for block in select.stack_of(after.graph).blocks)
    reach = getattr(repair, "reach", "gap")
    evidence = _Gaps(after, blocks, gaps, repr((repair, gaps)))
    done = repair.mend(tuple(_takers(after, blocks, gaps, reach)), evidence)
    values = dict(done.values)
    bridged = {place for place in gaps if evidence.fitted.get(place)}
    start = ("a gap at the start of the stack has nothing before it",) if -1 in gaps else ()
    notes = (f"{len(bridged)} of {len(gaps)} gaps bridged", *start, *evidence.notes)
    if reach == "rest":
        notes = (*notes, f"{len(values)} projections fitted in all")
    args = repair.model_dump(mode="json", exclude={"repair"})
    edits = tuple(Assign(name, f"repair.{repair.repair}", args, after.step) for name in values)
    return Mended(edits, values, (*notes, *done.notes))


def gaps_of(select: BlockSelector, before: State, after: State) -> dict[int, int]:
    """Where `after` lacks what `before` had: the place of the Block before each gap, and the gap's last.

    A Block that lost a sublayer is its own gap; before one at the start of the Stack stands -1.
    """
    gone = [name for name in after.plan.dropped if name not in before.plan.dropped]
    stack = select.stack_of(after.graph)
    blocks = tuple(block.name for block in stack.blocks)
    return {**dict(_lacking(stack, after, gone)), **dict(_gaps(blocks, after.plan.dropped, gone))}


def _gaps(blocks: Sequence[str], dropped: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Place of the Block before each gap with a new drop in it (-1: none), and of the last one in it."""
    start = -1
    for place, name in enumerate(blocks):
        if name not in dropped:
            start = place
        elif place + 1 == len(blocks) or blocks[place + 1] not in dropped:
            if any(name in new for name in blocks[start + 1 : place + 1]):
                yield start, place


def _lacking(stack: Stack, state: State, new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Place of each Block that lost a sublayer: what is left of it takes over, up to its own end."""
    places = {block.name: place for place, block in enumerate(stack.blocks)}
    for name, (block, _) in dropped_parts(state.plan, state.graph).items():
        if name in new and block.name in places:
            yield places[block.name], places[block.name]


def _takers(state: State, blocks: Sequence[str], gaps: Mapping[int, int], reach: str) -> Iterator[Cut]:
    """The projections that take over, front to back."""
    dropped = set(state.plan.dropped)
    for place, block in enumerate(blocks):
        behind = reach == "rest" and any(start < place for start in gaps)
        if block not in dropped and (place in gaps or behind):
            found = _projections(state, block)
            yield from found[-1:] if reach == "gap" else found


def _projections(state: State, block: str) -> tuple[Cut, ...]:
    """Of each sublayer the last plain matrix that writes to the stream, with the inputs left of it."""
    graph = state.graph
    gone, cuts = gone_prefixes(state.plan, graph), cuts_of(state.plan, graph)
    order = {part.name: place for place, part in enumerate(graph.block(block).sublayers)}
    found: dict[int, Cut] = {}
    for group in graph.groups:
        if group.block != block or group.kind not in ("ffn", "kv_group", "q_per_kv", "channel"):
            continue
        for site in group.sites:
            shape = graph.parameters[site.param].shape
            if site.role != "consumer" or len(shape) != 2 or site.param.startswith(gone):
                continue
            if _writes(graph, site.param, 1 - site.dim):
                kept = cuts.get(site.param, {}).get(site.dim, np.arange(shape[site.dim]))
                found[order.get(group.sublayer or "", -1)] = Cut(site.param, site.dim, kept, kept[:0], block)
    return tuple(found[place] for place in sorted(found))


def _writes(graph: Graph, param: str, dim: int) -> bool:
    """Whether that dim of the parameter produces the residual stream."""
    streams = {stack.axis for stack in graph.stacks}
    return any(group.name in streams and site.dim == dim for group, site in graph.sites[param])


@dataclass(eq=False)
class _Gaps:
    """Both walks through one Stack; `ends` gives the last place of the gap behind each Block.

    `how` is the repair in words, `fitted` counts the projections of each Block that were.
    """

    state: State
    blocks: tuple[str, ...]
    ends: Mapping[int, int]
    how: str
    fitted: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bench = self.state.trial()
        self.plan = self.state.plan
        self.notes: list[str] = []
        self.apart: list[str] = []

    def tensor(self, name: str) -> Tensor:
        return self.state.weights.get(name)

    def means(self, cuts: Sequence[Cut]) -> Mapping[str, Tensor]:
        return {}

    def by_gram(
        self, cuts: Sequence[Cut], constant: bool, mend: Callable[[Cut, Tensor], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        return {}

    def along_stream(self, cuts: Sequence[Cut], constant: bool, mend: Mend) -> Along:
        """Gap by gap from the front; each repair changes what the next one starts from."""
        unfinished = self.bench.unfinished(self.plan, self.how)
        held = {} if unfinished is None else unfinished.resume(self.bench.keep)
        blocks = {f"{_FITTED}{block}": tuple(own) for block, own in groupby(cuts, key=lambda cut: cut.block)}
        done = {piece: held[piece] for piece in blocks if piece in held}
        values: dict[str, Tensor] = {}
        walks: tuple[Walk, Walk] | None = None
        for piece, own in blocks.items():
            place = self.blocks.index(own[0].block or "")
            if piece in done:
                self._recall(done[piece])
            else:
                walks = walks or self._begun(held)
                done[piece] = self._mended(own, place, *walks, mend) | self._marks()
            names = [name for cut in own for name in (cut.param, cut.bias)]  # kept in whatever order
            found = {name: done[piece][name] for name in names if name in done[piece]}
            values |= found
            self.fitted[place] = len(found)
            self.plan = self._with(found)
            if walks is not None:
                if unfinished is not None:
                    unfinished.put_aside(done | walks[0].state("original") | walks[1].state("cut"))
                self.bench.told("bridge gaps", place + 1, len(self.blocks))
        if unfinished is not None:
            unfinished.through(done)
        return Along(values, tuple(self.apart))

    def _begun(self, held: Mapping[str, Mapping[str, Tensor]]) -> tuple[Walk, Walk]:
        """The walks of the original and of the cut model, as far as `held`."""
        samples = self.bench.samples
        size = max(1, TOKENS // samples.ids.shape[1])
        aim = Walk.begin(self.bench.module, self.blocks, samples, size, self._original(0), self.bench.keep)
        have = aim.beside(self._forward(0))
        aim.take_up("original", held)
        have.take_up("cut", held)
        return aim, have

    def _mended(self, own: Sequence[Cut], place: int, aim: Walk, have: Walk, mend: Mend) -> dict[str, Tensor]:
        """New values of the projections of the Block at `place`."""
        self._advance(have, place)
        while aim.at < self.ends.get(place, place - 1) + 1:
            aim.advance(self._original(aim.at))
        found = self._fitted(own, place, aim, have, mend)
        if place in self.ends:
            fewer = [self._fitted(own[-1:], place, aim, have, mend)] if len(own) > 1 else []
            found = self._best([found, *fewer, {}], aim, have)
        return found

    def _marks(self) -> dict[str, Tensor]:
        """What there is to say so far, in the names of tensors, to be put aside with the values."""
        said = {_NOTE: self.notes, _APART: self.apart}
        return {
            f"{mark}{at:03}/{one}": torch.zeros(1) for mark, all in said.items() for at, one in enumerate(all)
        }

    def _recall(self, found: Mapping[str, Tensor]) -> None:
        """Say what `_marks` put aside."""
        for mark, said in ((_NOTE, self.notes), (_APART, self.apart)):
            said[:] = [
                name.removeprefix(mark).partition("/")[2] for name in sorted(found) if name.startswith(mark)
            ]

    def _fitted(
        self, cuts: Sequence[Cut], place: int, aim: Walk, have: Walk, mend: Mend
    ) -> dict[str, Tensor]:
        """New values of the projections of one Block, each fitted with the earlier ones in force."""
        values: dict[str, Tensor] = {}
        for cut in cuts:
            gap = self._gap(cut, place, aim, have, self._with(values))
            if gap is None:
                note = f"what '{cut.param}' gives does not simply join the stream; left as it is"
                self.notes = [*dict.fromkeys((*self.notes, note))]
            else:
                self.apart += [] if gap.joined else [cut.param]
                values |= {name: self.bench.keep(new) for name, new in mend(cut, gap).items()}
        return values

    def _best(self, tried: Sequence[dict[str, Tensor]], aim: Walk, have: Walk) -> dict[str, Tensor]:
        """Of these values of one Block those that end nearest to the original.

        Projections before the last are fitted as if what comes behind them gave what it gave before, and
        those before a norm as if its scale stayed: wrong where they have to move far.
        """
        errors = [end_error(aim.states, have, self._forward(have.at, self._with(v))) for v in tried]
        best = tried[errors.index(min(errors))]
        left = sorted(tried[0].keys() - best.keys())
        if left:
            self.notes.append(f"{', '.join(left)} left as it is: fitted too, the gap ends further off")
        return best

    def _with(self, values: Mapping[str, Tensor]) -> Plan:
        return self.plan.add([Assign(name, "repair") for name in values], values)

    def _gap(self, cut: Cut, place: int, aim: Walk, have: Walk, plan: Plan) -> Gap | None:
        """What the projection should add: up to the end of a gap, or to the original's own state."""
        kept, forward = torch.from_numpy(cut.kept), self._forward(place, plan)
        if place in self.ends:
            found = bridge_gap(cut.param, kept, aim.states, have, forward)
            return None if found is None else Gap(*found)
        aims = states_behind(cut.param, aim, self._original(aim.at)).behind
        behind = stream_gap(stream_rows(cut.param, kept, False, aims, have, forward))
        return Gap(behind.gram, behind.cross, behind.joined)

    def _advance(self, have: Walk, place: int) -> None:
        while have.at < place:
            if self.blocks[have.at] in self.plan.dropped:
                have.step_over()
            else:
                have.advance(self._forward(have.at))

    def _original(self, at: int) -> Forward:
        """The original, to run the Block at `at`."""
        unused, here = self.blocks[:at] + self.blocks[at + 1 :], self.blocks[at : at + 1]
        return masked(self.bench.module, Plan(self.plan.model_type), self.state.graph).fixed(unused, *here)

    def _forward(self, at: int, plan: Plan | None = None) -> Callable[..., object]:
        """The cut model, to run the Block at `at`."""
        unused, here = self.blocks[:at] + self.blocks[at + 1 :], self.blocks[at : at + 1]
        return masked(self.bench.module, plan or self.plan, self.state.graph).fixed(unused, *here)
