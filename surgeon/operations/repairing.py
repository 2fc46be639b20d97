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

from surgeon.calibrate.gap import stream_gap
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.walk import Walk
from surgeon.errors import InfeasibleError
from surgeon.operations.state import State
from surgeon.plan import Assign, Plan
from surgeon.rebuild import masked
from surgeon.repair import Cut, Gap, Repair, cuts_made

__all__ = ["Mended", "repaired"]

_TOKENS = 4096
"""Tokens of one batch of a walk."""


@dataclass(frozen=True)
class Mended:
    """Edits that assign what a repair computed, their tensors, and what is worth saying."""

    edits: tuple[Assign, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def repaired(repair: Repair, before: State, after: State) -> Mended:
    """What `repair` assigns for the cuts that lie between two States of one step.

    Raises:
        InfeasibleError: the repair cannot be made on this model.
    """
    if not repair.needs_text:
        return Mended()
    cuts = cuts_made(before.plan, after.plan, before.graph)
    if not cuts:
        return Mended()
    refusal = repair.refuse(cuts)
    if refusal is not None:
        raise InfeasibleError(
            f"repair '{repair.repair}': {refusal}", hint="repair: {repair: refit, constant: false}"
        )
    done = repair.mend(cuts, _Evidence(before, after.plan))
    args = repair.model_dump(mode="json", exclude={"repair"})
    edits = tuple(Assign(name, f"repair.{repair.repair}", args, before.step) for name in done.values)
    return Mended(edits, dict(done.values), done.notes)


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
        return _Stream(self.before, self.cut, constant).mended(cuts, mend)


class _Stream:
    """Both walks, and the Plan as it grows with every repair."""

    def __init__(self, before: State, cut: Plan, constant: bool) -> None:
        self.bench = before.trial()
        self.graph = before.graph
        self.blocks = tuple(block.name for block in max(self.graph.stacks, key=len).blocks)
        self.plan = cut
        self.constant = constant
        samples = self.bench.samples
        size = max(1, _TOKENS // samples.ids.shape[1])
        self.whole = masked(self.bench.module, Plan(cut.model_type), self.graph).fixed(self.blocks)
        self.aim = Walk.begin(self.bench.module, self.blocks, samples, size, self.whole)
        self.have = self.aim.beside(self._forward(0))

    def mended(
        self, cuts: Sequence[Cut], mend: Callable[[Cut, Gap], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """All new tensors, block by block."""
        values: dict[str, Tensor] = {}
        for block, here in groupby(cuts, key=lambda cut: cut.block):
            self._advance_to(block)
            for cut in here:
                found = mend(cut, self._gap(cut))
                values |= found
                self.plan = self.plan.add([Assign(name, "repair") for name in found], found)
            self.bench.told("repair", self.have.at + 1, len(self.blocks))
        return values

    def _gap(self, cut: Cut) -> Gap:
        kept = torch.from_numpy(cut.kept)
        constant = self.constant and cut.bias is not None
        found = stream_gap(
            cut.param, kept, constant, (self.aim, self.whole), (self.have, self._forward(self.have.at))
        )
        return Gap(found.gram, found.cross)

    def _advance_to(self, block: str | None) -> None:
        while self.blocks[self.have.at] != block:
            self.aim.advance(self.whole)
            if self.blocks[self.have.at] in self.plan.dropped:
                self.have.step_over()
            else:
                self.have.advance(self._forward(self.have.at))

    def _forward(self, at: int) -> Callable[..., object]:
        """The masked view under the Plan so far, to run the Block at `at`."""
        return masked(self.bench.module, self.plan, self.graph).fixed(
            self.blocks[:at] + self.blocks[at + 1 :]
        )


def _params(cuts: Sequence[Cut]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cut.param for cut in cuts))
