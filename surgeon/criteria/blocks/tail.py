"""Block criterion ``tail``: the deepest Blocks go."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria

__all__ = ["Tail"]


@block_criteria.register("tail")
class Tail(BlockCriterion):
    """By place alone: the last go (Lu et al. 2024, arXiv 2411.15558), or all but the very last.

    ``keep_last: 1`` is the simple rule of Gromov et al. (2024, arXiv 2403.17887).

    YAML::

        criterion: {criterion: tail, keep_last: 1}
    """

    reads_weights: ClassVar[bool] = False

    criterion: Literal["tail"] = "tail"
    keep_last: Annotated[int, Field(ge=0)] = 0
    """So many of the very last Blocks stay."""

    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """Scores [blocks - run + 1]."""
        count = len(candidates.blocks)
        single = {p: np.inf if p >= count - self.keep_last else float(count - p) for p in range(count)}
        return candidates.sums(single, run)
