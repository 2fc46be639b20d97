"""Block criterion ``random``: the baseline that any other one has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria

__all__ = ["RandomBlocks"]


@block_criteria.register("random")
class RandomBlocks(BlockCriterion):
    """Uniform in [0, 1), fixed by `seed` and the number of Blocks that are left.

    YAML::

        criterion: {criterion: random, seed: 7}
    """

    reads_weights: ClassVar[bool] = False

    criterion: Literal["random"] = "random"
    seed: int = 0
    """Another seed, another order."""

    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """Scores [blocks - run + 1]."""
        count = len(candidates.blocks)
        drawn = np.random.default_rng([self.seed & 0xFFFFFFFF, count]).random(count)
        return candidates.sums(dict(enumerate(drawn.tolist())), run)
