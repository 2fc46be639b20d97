"""Bench: a model and its calibration samples, ready to be run under any Plan.

What a step asks that no single measurement of the model as it stands can answer: how it does under a
Plan that is only tried. Nothing is loaded or read before it is asked for. Not here: what is measured
(one Statistic a file), and how a Plan is masked (`surgeon.rebuild`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import nn

from surgeon.calibrate.blocks_held import blocks_held
from surgeon.calibrate.gather import gather
from surgeon.calibrate.memory import Memory
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.probe import Apart
from surgeon.calibrate.ranks import Ranks
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Statistic
from surgeon.calibrate.store import PartialRun, measured_on
from surgeon.calibrate.streamed import gather_streamed
from surgeon.calibrate.streams import streams
from surgeon.calibrate.unfinished import Unfinished
from surgeon.calibrate.walk import Keep, as_it_is
from surgeon.graph import Graph
from surgeon.plan import Plan
from surgeon.rebuild import MaskedView, masked

__all__ = ["TOKENS", "Bench", "Told"]

Told = Callable[[str, int, int | None], None]
"""Told a stage in words, what is done of it, and how much there is."""


TOKENS = 1024
"""Tokens of one batch of a run; the logits of a large vocabulary are its largest tensor."""


class Bench:
    """Runs one model on its calibration samples, as it is under a Plan.

    Args:
        graph: the model's Graph.
        module: gives the model with its weights.
        samples: gives the calibration samples.
        told: told what is being done.
        memory: where measurements of this model are kept; None keeps none.
        streamed: the model's weights are read at each use, so that it is measured Block by Block.
        device: where results are wanted; None leaves each where it was measured.
        keep: what becomes of tensors that wait between Blocks.
    """

    def __init__(
        self,
        graph: Graph,
        module: Callable[[], nn.Module],
        samples: Callable[[], Samples],
        told: Told,
        memory: Memory | None = None,
        streamed: bool = False,
        device: str | None = None,
        keep: Keep = as_it_is,
    ) -> None:
        self.graph = graph
        self.told = told
        self.memory = memory
        self.streamed = streamed
        self.device = device
        self.keep = keep
        self.apart = False
        """Whether the Blocks were found to hand each other more than the residual stream."""
        self._module = module
        self._samples = samples

    @cached_property
    def module(self) -> nn.Module:
        """The traced model with its weights, in float32 or wider."""
        return self._module()

    @cached_property
    def samples(self) -> Samples:
        """The calibration samples."""
        return self._samples()

    def view(self, plan: Plan) -> MaskedView:
        """The model acting as if `plan` were applied, run the plain way whatever the plan."""
        return masked(self.module, plan, self.graph)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The model in eval mode and outside of autograd for the time of the context, then as it was."""
        modes = {part: part.training for part in self.module.modules()}
        try:
            self.module.eval()
            with torch.no_grad():
                yield
        finally:
            for part, mode in modes.items():
                part.training = mode

    @property
    def goes_by_blocks(self) -> bool:
        """Whether whole runs of a streamed model had better go Block by Block, each read for all batches.

        Not where an encoder would run anew before every Block of the decoder.
        """
        two_sided = bool(getattr(getattr(self.module, "config", None), "is_encoder_decoder", False))
        return self.streamed and bool(self.blocks) and not (self.apart or two_sided)

    def measure(self, plan: Plan, wanted: frozenset[Statistic]) -> Statistics:
        """The Statistics `wanted` of the model under `plan`: remembered, or in one run over the samples."""
        keys = tuple(sorted(wanted, key=repr))
        if self.memory is None:
            found = self._gathered(plan, keys, None)
        else:
            found = self.memory.measured(
                keys, self.samples, plan, lambda missing, partial: self._gathered(plan, missing, partial)
            )
        return found if self.device is None else found.on(self.device)

    def unfinished(self, plan: Plan, said: str) -> Unfinished | None:
        """Where a streamed run under `plan` is put aside; `said` is all else that it depends on."""
        if self.memory is None or not self.streamed:
            return None
        on, ranks = measured_on(self.memory.model, self.samples, plan, "streamed"), Ranks.now()
        key = json.dumps({"on": on, "said": said, "rank": [ranks.rank, ranks.size]}, sort_keys=True)
        return Unfinished(self.memory.store, key, self.memory.interval)

    def _gathered(self, plan: Plan, keys: Collection[Statistic], partial: PartialRun | None) -> Statistics:
        stage = f"measure {', '.join(sorted({key.statistic for key in keys}))}"
        backward = any(key.gradients for key in keys)
        alone = not self.apart and all(streams(key, self.blocks) for key in keys)
        if self.streamed and (backward or alone):
            try:
                return self._block_by_block(plan, keys, stage, partial)
            except Apart:
                if backward:
                    raise
                self.apart = True  # weights are read for every batch then, and all that is summed is held
        stage = f"{stage}, whole batches" if self.streamed else stage
        with blocks_held(self.module, self._held(keys) if self.streamed else ()):
            return gather(
                self.module,
                self.samples,
                keys,
                view=self.view(plan) if plan.edits else None,
                batch_size=1 if backward else max(1, TOKENS // self.samples.ids.shape[1]),
                progress=lambda done, total: self.told(stage, done, total),
                partial=partial,
                ranks=Ranks.now(),
            )

    def _held(self, keys: Collection[Statistic]) -> tuple[str, ...]:
        """Modules whose weights are held as they run: all Blocks, and what `keys` look at outside of them."""
        blocks = [block.name for stack in self.graph.stacks for block in stack.blocks]
        inside = tuple(f"{block}." for block in blocks)
        places = [path for key in keys for path in key.places or () if not f"{path}.".startswith(inside)]
        return tuple(dict.fromkeys([*blocks, *(path.rpartition(".")[0] for path in places)]))

    @property
    def blocks(self) -> tuple[str, ...]:
        """Module paths of the Blocks of the longest Stack, in order."""
        longest = max(self.graph.stacks, key=len, default=None)
        return () if longest is None else tuple(block.name for block in longest.blocks)

    def _block_by_block(
        self, plan: Plan, keys: Collection[Statistic], stage: str, partial: PartialRun | None
    ) -> Statistics:
        ranks = Ranks.now()
        unfinished = None
        if partial is not None:
            unfinished = Unfinished(partial.store, partial.key, partial.interval, ranks)
        return gather_streamed(
            self.view(plan),
            self.blocks,
            plan.dropped,
            self.samples,
            keys,
            batch_size=max(1, TOKENS // self.samples.ids.shape[1]),
            progress=lambda done, total: self.told(f"{stage}, block by block", done, total),
            keep=self.keep,
            unfinished=unfinished,
            ranks=ranks,
        )
