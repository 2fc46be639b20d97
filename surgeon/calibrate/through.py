"""Through: what a streamed model returns for each of some batches, every Block's weights read once.

Called like the model under a Plan, with the inputs of the batch whose turn it is. When it is called first,
all batches go through the Blocks, one Block after the other; from then on only what stands behind the Blocks
is run. Not here: what is made of the outputs (`tally`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.unfinished import Unfinished
from surgeon.calibrate.walk import Walk
from surgeon.errors import SurgeonError
from surgeon.plan import Plan
from surgeon.rebuild.reading import Reading, computes_elsewhere

__all__ = ["Through"]

_STATES = "through"
"""Name of the states that are put aside."""


@dataclass(eq=False)
class Through:
    """The model of `bench` under `plan`, for `batches`; `stage` is what a watcher is told.

    `asked` says in words all else that the run depends on: one that was killed goes on at its Block.
    """

    bench: Bench
    plan: Plan
    batches: Sequence[Samples]
    stage: str
    asked: str
    number: int = 0
    """The batch whose turn it is."""
    _walk: Walk | None = None
    _unfinished: Unfinished | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._view = self.bench.view(self.plan)

    def __call__(self, **inputs: object) -> object:
        """What the model returns for the batch, without gradients; hooks behind the Blocks see it run.

        Raises:
            Apart: the Blocks hand each other more than the residual stream.
            SurgeonError: the inputs are not those of the batch.
        """
        batch, ids = self.batches[self.number], inputs.get("input_ids")
        if not (isinstance(ids, Tensor) and torch.equal(ids.cpu(), batch.ids)):
            raise SurgeonError(f"a streamed model was called with other inputs than batch {self.number}")
        walk = self._walk = self._walk or self._walked()
        forward = self._view.fixed(walk.blocks)
        return walk.finish(forward, batch, walk.states[self.number], taped=False)

    def close(self) -> None:
        """Nothing goes on from here."""
        if self._unfinished is not None:
            self._unfinished.over()

    def _walked(self) -> Walk:
        """Behind the last Block, with the states of all batches."""
        bench, blocks = self.bench, self.bench.blocks
        shapes = [tuple(batch.ids.shape) for batch in self.batches]
        self._unfinished = bench.unfinished(self.plan, repr((self.asked, shapes)))
        held = {} if self._unfinished is None else self._unfinished.resume(bench.keep)
        walk = Walk.over(bench.module, blocks, self.batches, self._view.fixed(), bench.keep, alongside=True)
        reading = Reading[int](lambda at: self._view.inside(blocks[at]), computes_elsewhere(bench.module))
        with closing(walk), closing(reading):
            walk.take_up(_STATES, held)
            for at in range(walk.at, len(blocks)):
                self._advance(walk, reading)
                if self._unfinished is not None:
                    self._unfinished.put_aside(walk.state(_STATES))
                bench.told(f"{self.stage}, block by block", at + 1, len(blocks))
            walk.probe.reach(len(blocks) - 1, {})
        return walk

    def _advance(self, walk: Walk, reading: Reading[int]) -> None:
        """Take the current Block; its weights are let go of before those of the next are read."""
        left = [at for at, block in enumerate(walk.blocks) if block not in self.plan.dropped]
        if walk.at in left:
            then = next((later for later in left if later > walk.at), None)
            walk.advance(self._view.holding(reading.at(walk.at, then), walk.blocks))
        else:
            walk.step_over()
