"""Block criterion ``taylor``: Blocks whose weights the loss would miss stay."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from surgeon.calibrate.gradient import Gradient
from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria
from surgeon.criteria.saliency import widened

__all__ = ["BlockTaylor"]


@block_criteria.register("taylor")
class BlockTaylor(BlockCriterion):
    """Sum of abs(w·g) over the Block's parameters: "Taylor+" of Shortened LLaMA (arXiv 2402.02834).

    Kim et al. 2024. The plus: first-order scores call the first Blocks cheap and are wrong, so the first
    four and the last two are never dropped.

    YAML::

        criterion: {criterion: taylor, protect_first: 4, protect_last: 2}
    """

    criterion: Literal["taylor"] = "taylor"
    protect_first: Annotated[int, Field(ge=0)] = 4
    """So many Blocks at the start stay."""
    protect_last: Annotated[int, Field(ge=0)] = 2
    """So many Blocks at the end stay."""

    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """Scores [blocks - run + 1]."""
        key = Gradient(tuple(param for name in candidates.blocks for param in candidates.params[name]))
        gradients = candidates.statistics((key,)).get(key)
        last = len(candidates.blocks) - self.protect_last
        single: dict[int, float] = {}
        for place, name in enumerate(candidates.blocks):
            single[place] = np.inf
            if self.protect_first <= place < last:
                single[place] = sum(
                    float((widened(candidates.weights.get(param)) * gradients[param]).abs().double().sum())
                    for param in candidates.params[name]
                )
        return candidates.sums(single, run)
