"""Statistics of one Block at a time, on the states that a Walk has before it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from surgeon.calibrate.gather import attached, joined
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Observation, Run, Statistic
from surgeon.calibrate.taps import Taps
from surgeon.calibrate.walk import Forward, Walk
from surgeon.errors import SurgeonError

__all__ = ["AtBlock", "gather_at_block"]


@dataclass(frozen=True, eq=False)
class AtBlock:
    """What was measured in one Block, and the states that it gave, batch by batch."""

    statistics: Statistics
    states: list[Tensor]


def gather_at_block(walk: Walk, forward: Forward, wanted: Collection[Statistic]) -> AtBlock:
    """Measure `wanted` inside the Walk's current Block; of other Blocks, the results have nothing.

    Args:
        walk: stands before the Block; it is not moved.
        forward: runs the model, or a masked view of it.
        wanted: keys of what happens inside single Blocks.

    Raises:
        SurgeonError: a Statistic needs more than one Block's forward pass.
    """
    keys = tuple(dict.fromkeys(wanted))
    _check(keys, walk)
    block = walk.blocks[walk.at]
    here = tuple(key.at(block) for key in keys)
    run = Run(walk.module, walk.samples, walk.tokens, Taps(walk.module))
    collectors = tuple(key.collector(run) for key in here)
    states: list[Tensor] = []
    for number, batch in enumerate(walk.batches):
        run.taps.begin(batch)
        for collector in collectors:
            collector.begin(batch)
        with attached(collectors, run.taps):
            states.append(walk.run(forward, number))
        for collector in collectors:
            collector.observe(Observation(batch, batch.predicted, 0.0, {}))
    if walk.ranks.size > 1:
        collectors = joined(here, collectors, run, walk.ranks)
    results = {
        key: {
            name: found
            for name, found in collector.result().items()
            if own is not key or name.startswith(f"{block}.")
        }
        for key, own, collector in zip(keys, here, collectors, strict=True)
    }
    return AtBlock(Statistics(results, run.samples, run.tokens), states)


def _check(keys: Collection[Statistic], walk: Walk) -> None:
    batched = any(len(batch) > 1 for batch in walk.batches)
    for key in keys:
        why = None
        if key.gradients:
            why = "gradients of the whole model"
        elif not key.inside:
            why = "more than what happens inside one block"
        elif key.per_sample and batched:
            why = "single samples"
        if why is not None:
            raise SurgeonError(
                f"statistic '{key.statistic}' is not measured block by block: it needs {why}",
                hint="inputs: dense",
            )
