"""Carry out the repair of a step: measure what it asks for, and put what it gives into the Plan.

Implements `surgeon.repair.Evidence` on a State: statistics of the model as the steps before left it, and,
for repairs toward the residual stream, two walks through the model, of the original and of the masked view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from surgeon.calibrate import Statistics, digest
from surgeon.calibrate.bench import TOKENS
from surgeon.calibrate.condensed import Condensed
from surgeon.calibrate.experts import experts_of
from surgeon.calibrate.gap import Rows, stream_gap, stream_rows
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.operations.mending import Mended
from surgeon.operations.state import State
from surgeon.operations.walks import Walks
from surgeon.plan import Assign, Plan
from surgeon.repair import Along, Cut, Gap, Repair
from surgeon.repair.refit import Refit

__all__ = ["fitted_together", "mended"]

_FITTED, _APART = "fitted/", "apart/"
"""Marks of what was put aside: of one Block, and of a projection that was fitted to its own output."""


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
    done = repair.mend(cuts, _Evidence(before, cut, repr(repair)))
    args = repair.model_dump(mode="json", exclude={"repair"})
    # What was kept may be in another order.
    order = dict.fromkeys(name for cut in cuts for name in (cut.param, cut.bias) if name is not None)
    values = {name: done.values[name] for name in order if name in done.values}
    edits = tuple(Assign(name, f"repair.{repair.repair}", args, before.step) for name in values)
    return Mended(edits, values, done.notes)


def fitted_together(repair: Repair, param: str, graph: Graph) -> bool:
    """Whether `param` is the last stack of routed experts, which a refit toward the stream fits as one."""
    if not isinstance(repair, Refit) or repair.target != "stream":
        return False
    counts = [group for group, _ in graph.sites[param] if group.kind == "expert"]
    return any(experts.outlet == param for experts in experts_of(graph, counts))


@dataclass(frozen=True)
class _Evidence:
    """The State before the cut, the Plan with it, and the repair in words."""

    before: State
    cut: Plan
    how: str

    def tensor(self, name: str) -> Tensor:
        return self.before.weights.get(name)

    def means(self, cuts: Sequence[Cut]) -> Mapping[str, Tensor]:
        return self._measured(InputMoment("mean", _params(cuts)))

    def by_gram(
        self, cuts: Sequence[Cut], constant: bool, mend: Callable[[Cut, Tensor], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        gram = Gram(constant, _params(cuts))

        def make(found: Statistics) -> Mapping[str, Tensor]:
            grams = found.get(gram)
            return {
                n: t for cut in cuts if cut.param in grams for n, t in mend(cut, grams[cut.param]).items()
            }

        streamed = self.before.bench is not None and self.before.bench.streamed
        if not streamed or any(cut.block is None for cut in cuts):
            return make(self.before.statistics({gram})) if cuts else {}
        return self._measured(Condensed((gram,), self._said(cuts, constant), make))

    def _measured(self, key: InputMoment | Condensed) -> Mapping[str, Tensor]:
        return self.before.statistics({key}).get(key) if key.params else {}

    def along_stream(
        self, cuts: Sequence[Cut], constant: bool, mend: Callable[[Cut, Gap], Mapping[str, Tensor]]
    ) -> Along:
        if not cuts:
            return Along()
        bench = self.before.trial()
        unfinished = bench.unfinished(self.before.plan, self._said(cuts, constant))
        held = {} if unfinished is None else unfinished.resume(bench.keep)
        blocks = {f"{_FITTED}{block}": tuple(own) for block, own in groupby(cuts, key=lambda cut: cut.block)}
        done = {piece: held[piece] for piece in blocks if piece in held}
        walks: Walks | None = None
        for piece, here in blocks.items():
            if piece in done:
                continue
            if walks is None:
                walks = Walks.begin(self.before, self.cut, TOKENS)
                walks.take_up(held)
                walks.put(_values({n: t for found in done.values() for n, t in found.items()}))
            walks.advance_to(here[0].block)
            done[piece] = {n: t for cut in here for n, t in self._fitted(walks, cut, constant, mend).items()}
            if unfinished is not None:
                unfinished.put_aside(done | walks.state())
            walks.told()
        if unfinished is not None:
            unfinished.through(done)
        fitted = {name: tensor for found in done.values() for name, tensor in found.items()}
        apart = tuple(name.removeprefix(_APART) for name in fitted if name.startswith(_APART))
        return Along(_values(fitted), apart)

    def _fitted(
        self, walks: Walks, cut: Cut, constant: bool, mend: Callable[[Cut, Gap], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """New tensors of one projection, which are in force from now on."""
        kept, with_bias = torch.from_numpy(cut.kept), constant and cut.bias is not None
        aims, keep = walks.behind(cut.param), walks.bench.keep
        rows: Iterable[Rows] = stream_rows(cut.param, kept, with_bias, aims, *walks.cut())
        if walks.bench.streamed:  # wait, until the block's weights are let go of, for the matrices to be made
            rows = [Rows(keep(one.a), keep(one.e), one.joined) for one in rows]
        found = stream_gap(rows)
        joined, given = found.joined, [Gap(found.gram, found.cross, found.joined)]
        del found, rows  # the matrices are the repair's alone, to be let go of before new weights are made
        found = {name: keep(new) for name, new in mend(cut, given.pop()).items()}
        walks.put(found)
        return found if joined else {**found, f"{_APART}{cut.param}": torch.zeros(1)}

    def _said(self, cuts: Sequence[Cut], constant: bool) -> str:
        """What the fit depends on beside the model as it was, its text and how it is fitted."""
        made = [(cut.param, cut.dim, cut.kept.tolist()) for cut in cuts]
        values = {name: value for name, value in self.cut.values.items() if isinstance(value, Tensor)}
        return repr((self.how, made, constant, self.cut.edits, digest(values)))


def _values(fitted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in fitted.items() if not name.startswith(_APART)}


def _params(cuts: Sequence[Cut]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cut.param for cut in cuts))
