"""Kullback-Leibler divergence of the model from another one, per token."""

from __future__ import annotations

from torch import Tensor

from surgeon.evaluate.compared import Compared
from surgeon.evaluate.metric import metrics

__all__ = ["KlDivergence"]


@metrics.register("kl")
class KlDivergence(Compared):
    """Mean over tokens of KL(other || model) in nats: what it costs to believe the model instead."""

    name = "kl"
    unit = "nats/token"
    better = "lower"

    def between(self, own: Tensor, other: Tensor) -> Tensor:
        """The divergence of each token."""
        log_q, log_p = own.log_softmax(-1), other.log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).double().sum(-1)
