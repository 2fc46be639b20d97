"""Block criterion ``perplexity``: Blocks go whose loss the model feels least, measured."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from surgeon.calibrate.skipping import losses_without, losses_without_parts
from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria

__all__ = ["Perplexity"]


@block_criteria.register("perplexity")
class Perplexity(BlockCriterion):
    """Mean next-token loss of the calibration text without the Block, in nats; its exponential ranks alike.

    One-shot as Shortened LLaMA (Kim et al. 2024, arXiv 2402.02834); with ``shots: each`` greedy as SLEB
    (Song et al. 2024, arXiv 2402.09025). States before the skipped Blocks are reused, so trying all L
    Blocks but the first costs less than half of L passes over the text.

    YAML::

        - op: drop_blocks
          keep: {fraction: 0.75}
          criterion: perplexity
          shots: each
    """

    criterion: Literal["perplexity"] = "perplexity"
    protect_first: Annotated[int, Field(ge=0)] = 1
    """So many Blocks at the start are not tried: they are missed most, and trying them costs most."""

    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """Scores [blocks - run + 1]."""
        owners = candidates.owners
        places = [owners.get(name, place) for place, name in enumerate(candidates.blocks)]
        starts = [start for start in candidates.starts(run) if places[start] >= self.protect_first]
        found = np.full(len(candidates.blocks) - run + 1, np.inf)
        if starts and owners:
            parts = [(places[start], candidates.blocks[start]) for start in starts]
            found[starts] = losses_without_parts(candidates.bench(), candidates.plan, candidates.stack, parts)
        elif starts:
            runs = [(start, start + run) for start in starts]
            _, losses = losses_without(candidates.bench(), candidates.plan, candidates.blocks, runs)
            found[starts] = losses
        return found
