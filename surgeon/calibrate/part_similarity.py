"""How much each sublayer of each Block turns the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import torch
from torch import nn

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.walk import Walk
from surgeon.plan import DropBlock, Plan, dropped_parts
from surgeon.rebuild import Fixed
from surgeon.rebuild.reading import Reading, computes_elsewhere

__all__ = ["part_similarity"]

_TOKENS = 4096
"""Tokens of one batch of a walk."""


def part_similarity(bench: Bench, plan: Plan, blocks: Sequence[str]) -> dict[str, float]:
    """Mean cosine over tokens of the stream before and behind each sublayer that is left, by its name.

    The stream behind the first k sublayers of a Block is what the Block gives without the later ones, so it
    is right for whatever scales and norms a family puts around them.

    Args:
        bench: the model and its text.
        plan: what is in force.
        blocks: the Stack's Blocks that `plan` leaves, in order.

    Raises:
        SurgeonError: a Block cannot be run alone.
    """
    graph = bench.graph
    gone = dropped_parts(plan, graph)
    view = bench.view(plan)
    size = max(1, _TOKENS // bench.samples.ids.shape[1])
    walk = Walk.begin(bench.module, blocks, bench.samples, size, view.fixed(), bench.keep, alongside=True)
    reading = Reading[int](lambda at: view.own(blocks[at]), computes_elsewhere(bench.module))
    found: dict[str, float] = {}
    with closing(walk), closing(reading):
        for place, block in enumerate(blocks):
            parts = [part.name for part in graph.block(block).sublayers if part.name not in gone]
            own = reading.at(place, place + 1 if place + 1 < len(blocks) else None)
            first = [
                bench.view(plan.add(DropBlock(name, 0) for name in parts[count:])).around(own, blocks)
                for count in range(1, len(parts))
            ]
            whole = view.around(own, blocks)
            walk.check(whole)  # tells how the Block is called
            found |= dict(zip(parts, _similarities(walk, (*first, whole)), strict=True))
            walk.advance(whole)
            del own, first, whole  # before the next Block's weights are read
            bench.told("compare sublayers", place + 1, len(blocks))
    return found


def _similarities(walk: Walk, forwards: Sequence[Fixed]) -> list[float]:
    """Mean cosines of neighbours among the state before the current Block and what each forward gives."""
    total, tokens = torch.zeros(len(forwards), dtype=torch.float64), 0
    for number, before in enumerate(walk.states):
        states = [before, *(walk.run(forward, number) for forward in forwards)]
        for index in range(len(forwards)):
            cosine = nn.functional.cosine_similarity(states[index], states[index + 1], dim=-1)
            total[index] += cosine.double().sum().cpu()
        tokens += before.shape[:-1].numel()
    return (total / tokens).tolist()
