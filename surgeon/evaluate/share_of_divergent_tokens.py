"""Share of divergent tokens: how often the model would leave the path of another one."""

from __future__ import annotations

from torch import Tensor

from surgeon.evaluate.metric import ContinuationMetric, metrics

__all__ = ["ShareOfDivergentTokens"]


@metrics.register("share_of_divergent_tokens")
class ShareOfDivergentTokens(ContinuationMetric):
    """Share of tokens that differ along the other's greedy continuation (SDT, arXiv 2311.01544)."""

    name = "share_of_divergent_tokens"
    unit = "share"
    better = "lower"

    def score(self, agree: Tensor) -> float:
        """Share of disagreements."""
        return float((~agree).double().mean())
