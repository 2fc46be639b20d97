"""Two walks side by side, of the original model and of the one that is being cut and repaired.

Each has one Block's weights in memory at a time, and what waits between Blocks is where the Bench keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from surgeon.calibrate import Bench
from surgeon.calibrate.gap import states_behind
from surgeon.calibrate.walk import Walk
from surgeon.graph import Graph
from surgeon.operations.state import State
from surgeon.plan import Assign, Plan
from surgeon.rebuild import Fixed, masked

__all__ = ["Walks"]


class Walks:
    """Both walks, and the Plan as it grows with every repair."""

    def __init__(
        self, bench: Bench, graph: Graph, cut: Plan, tokens: int, blocks: tuple[str, ...] = ()
    ) -> None:
        self.bench = bench
        self.graph = graph
        self.blocks = blocks or tuple(block.name for block in max(graph.stacks, key=len).blocks)
        self.plan = cut
        size = max(1, tokens // bench.samples.ids.shape[1])
        self._whole = masked(bench.module, Plan(cut.model_type), graph)
        start = self._whole.fixed(self.blocks)
        self._aim = Walk.begin(bench.module, self.blocks, bench.samples, size, start, bench.keep)
        self._have = self._aim.beside(masked(bench.module, cut, graph).fixed(self.blocks))
        self._ends: list[Tensor] | None = None

    @classmethod
    def begin(cls, state: State, cut: Plan, tokens: int, blocks: tuple[str, ...] = ()) -> Walks:
        """Before the first of `blocks` (of the longest Stack, where none are named), by the batch `tokens`.

        Raises:
            SurgeonError: there is no calibration text, or a Block cannot be run alone.
        """
        return cls(state.trial(), state.graph, cut, tokens, blocks)

    def advance_to(self, block: str | None) -> None:
        """Take the Blocks before the one called `block`."""
        while self.blocks[self._have.at] != block:
            if self._aim.at == self._have.at:
                self._advance_original()
            if self.blocks[self._have.at] in self.plan.dropped:
                self._have.step_over()
            else:
                self._have.advance(self._forward(self._have.at))

    def original_behind(self, place: int) -> list[Tensor]:
        """States of the original behind the Block at `place`, batch by batch; it may be ahead of the cut."""
        while self._aim.at <= place:
            self._advance_original()
        return self._aim.states

    def behind(self, param: str) -> list[Tensor]:
        """States of the original behind a projection of the current Block, batch by batch."""
        walk, forward = self.original()
        walk.check(forward)
        found = states_behind(param, walk, forward)
        self._ends = found.ends
        return found.behind

    def entering(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """States that enter the first Block with these tensors."""
        plan = self.plan.add([Assign(name, "repair") for name in values], values)
        return self._aim.beside(masked(self.bench.module, plan, self.graph).fixed(self.blocks)).states

    def meet(self) -> None:
        """Let the cut model go on from the states of the original."""
        self._have.states = list(self._aim.states)

    def put(self, values: Mapping[str, Tensor]) -> None:
        """From now on the cut model has these tensors."""
        self.plan = self.plan.add([Assign(name, "repair") for name in values], values)

    def original(self) -> tuple[Walk, Fixed]:
        """The original, before the current Block."""
        return self._aim, self._original(self._aim.at)

    def cut(self) -> tuple[Walk, Fixed]:
        """The cut model, before the current Block."""
        return self._have, self._forward(self._have.at)

    def told(self) -> None:
        """Say that the current Block is repaired."""
        self.bench.told("repair", self._have.at + 1, len(self.blocks))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The states of both walks, as pieces to put aside."""
        return self._aim.state("original") | self._have.state("cut")

    def take_up(self, pieces: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from what was put aside, if it holds such states."""
        self._aim.take_up("original", pieces)
        self._have.take_up("cut", pieces)

    def _advance_original(self) -> None:
        if self._ends is None:
            self._aim.advance(self._original(self._aim.at))
        else:
            self._aim.go_on(self._ends)
        self._ends = None

    def _original(self, at: int) -> Fixed:
        """The original, to run the Block at `at`."""
        return self._whole.fixed(self.blocks[:at] + self.blocks[at + 1 :], *self.blocks[at : at + 1])

    def _forward(self, at: int) -> Fixed:
        """The masked view under the Plan so far, to run the Block at `at`."""
        return masked(self.bench.module, self.plan, self.graph).fixed(
            self.blocks[:at] + self.blocks[at + 1 :], *self.blocks[at : at + 1]
        )
