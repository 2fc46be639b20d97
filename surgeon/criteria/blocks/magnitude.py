"""Block criterion ``magnitude``: Blocks with large weights stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from surgeon.criteria.blocks.criterion import BlockCriterion, Candidates, RunScores, block_criteria
from surgeon.criteria.powers import powers

if TYPE_CHECKING:
    from surgeon.rebuild import TensorSource

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
        return sum(self._sum(candidates.weights, name) for name in candidates.params[block])

    def _sum(self, weights: TensorSource, param: str) -> float:
        if not weights.shape(param):
            value = abs(float(weights.get(param)))
            return value if self.norm == "l1" else value**2
        return float(powers(weights, param, 0, self.norm).sum())
