"""How much each sublayer of each Block turns the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from surgeon.calibrate.bench import Bench
from surgeon.calibrate.walk import Walk
from surgeon.plan import DropBlock, Plan, dropped_parts

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
    whole = bench.view(plan).fixed()
    size = max(1, _TOKENS // bench.samples.ids.shape[1])
    walk = Walk.begin(bench.module, blocks, bench.samples, size, whole)
    found: dict[str, float] = {}
    for place, block in enumerate(blocks):
        parts = [part.name for part in graph.block(block).sublayers if part.name not in gone]
        unused = (*blocks[:place], *blocks[place + 1 :])
        views = [
            bench.view(plan.add(DropBlock(name, 0) for name in parts[count:])).fixed(unused)
            for count in range(1, len(parts))
        ]
        total, tokens = torch.zeros(len(parts), dtype=torch.float64), 0
        for number, before in enumerate(walk.states):
            states = [before, *(walk.run(view, number) for view in (*views, whole))]
            for index in range(len(parts)):
                cosine = nn.functional.cosine_similarity(states[index], states[index + 1], dim=-1)
                total[index] += cosine.double().sum().cpu()
            tokens += before.shape[:-1].numel()
        found |= dict(zip(parts, (total / tokens).tolist(), strict=True))
        walk.advance(whole)
        bench.told("compare sublayers", place + 1, len(blocks))
    return found
