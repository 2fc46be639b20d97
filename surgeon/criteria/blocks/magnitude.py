"""Block criterion ``magnitude``: Blocks with large weights stay."""

from __future__ import annotations

from typing import Literal

from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria
from surgeon.criteria.saliency import widened

__all__ = ["BlockMagnitude"]


@block_criteria.register("magnitude")
class BlockMagnitude(BlockCriterion):
    """Sum of abs(w)^p over the Block's parameters, p = 1 or 2, as in Shortened LLaMA (arXiv 2402.02834).

    YAML::

        criterion: {criterion: magnitude, norm: l1}
    """

    criterion: Literal["magnitude"] = "magnitude"
    norm: Literal["l1", "l2"] = "l1"
    """Exponent: 1 or 2."""

    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """Scores [blocks - run + 1]."""
        single = {place: self._of(candidates, name) for place, name in enumerate(candidates.blocks)}
        return candidates.sums(single, run)

    def _of(self, candidates: Candidates, block: str) -> float:
        total = 0.0
        for param in candidates.params[block]:
            w = widened(candidates.weights.get(param))
            total += float((w.abs() if self.norm == "l1" else w.square()).double().sum())
        return total
