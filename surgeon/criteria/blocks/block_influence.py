"""Block criterion ``block_influence``: Blocks that turn the residual stream least go first."""

from __future__ import annotations

from typing import Literal

from surgeon.calibrate.block_similarity import BlockSimilarity
from surgeon.calibrate.part_similarity import part_similarity
from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria

__all__ = ["BlockInfluence"]


@block_criteria.register("block_influence")
class BlockInfluence(BlockCriterion):
    """1 minus the mean cosine of a Block's input and output: ShortGPT (Men et al. 2024, arXiv 2403.03853).

    The last Block is compared before the final norm; the authors' code compares it behind, which makes
    its number another sort of thing. A run is worth the sum of its Blocks. A sublayer is compared with
    the stream before and behind it (He et al. 2024, arXiv 2406.15786).

    YAML::

        criterion: block_influence
    """

    criterion: Literal["block_influence"] = "block_influence"

    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """Scores [blocks - run + 1]."""
        owners = candidates.owners
        if owners:
            cosine = part_similarity(candidates.bench(), candidates.plan, candidates.stack)
            return candidates.sums({p: 1 - cosine[name] for p, name in enumerate(candidates.blocks)}, run)
        key = BlockSimilarity("cosine", "all", 1, candidates.blocks)
        cosine = candidates.statistics((key,)).get(key)
        single = {place: 1 - float(cosine[name]) for place, name in enumerate(candidates.blocks)}
        return candidates.sums(single, run)
