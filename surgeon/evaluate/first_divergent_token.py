"""First divergent token: how far the model goes along with another one."""

from __future__ import annotations

from torch import Tensor

from surgeon.evaluate.metric import ContinuationMetric, metrics

__all__ = ["FirstDivergentToken"]


@metrics.register("first_divergent_token")
class FirstDivergentToken(ContinuationMetric):
    """Mean number of tokens before the first that differs (FDT, arXiv 2311.01544); all, where none does."""

    name = "first_divergent_token"
    unit = "tokens"
    better = "higher"

    def score(self, agree: Tensor) -> float:
        """Mean length of the agreement at the start of each row."""
        return float(agree.long().cumprod(1).sum(1).double().mean())
