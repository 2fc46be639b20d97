"""Block criterion ``angular``: the run of Blocks that turns the residual stream least goes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from surgeon.calibrate.block_similarity import BlockSimilarity
from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria
from surgeon.errors import InfeasibleError

__all__ = ["Angular"]


@block_criteria.register("angular")
class Angular(BlockCriterion):
    """arccos(cosine)/pi between the input of a run and its output (Gromov et al. 2024, arXiv 2403.17887).

    There of the last token of each sample, and of one contiguous run as long as what is to go, which
    ``contiguous: true`` asks for. The last run is compared before the final norm.

    YAML::

        - op: drop_blocks
          keep: {fraction: 0.75}
          criterion: {criterion: angular, tokens: last}
          contiguous: true
    """

    criterion: Literal["angular"] = "angular"
    tokens: Literal["all", "last"] = "last"
    """Whose states are compared: every token's, or the last one's of each sample."""

    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """Scores [blocks - run + 1].

        Raises:
            InfeasibleError: sublayers are to be scored, which make no runs.
        """
        if candidates.owners:
            raise InfeasibleError(
                "angular compares runs of whole blocks, and sublayers make none",
                hint="criterion: block_influence",
            )
        key = BlockSimilarity("angular", self.tokens, run, candidates.blocks)
        distance = candidates.statistics((key,)).get(key)
        found = np.full(len(candidates.blocks) - run + 1, np.inf)
        for start in candidates.starts(run):
            found[start] = float(distance[candidates.blocks[start]])
        return found
