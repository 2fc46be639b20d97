"""Kullback-Leibler divergence of the model from another one, per token."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from surgeon.evaluate.metric import TokenMetric, metrics
from surgeon.evaluate.windows import Window

__all__ = ["KlDivergence"]


@metrics.register("kl")
class KlDivergence(TokenMetric):
    """Mean over tokens of KL(other || model) in nats: what it costs to believe the model instead."""

    name = "kl"
    unit = "nats/token"
    better = "lower"
    against = True

    def __init__(self) -> None:
        self._sum = 0.0
        self._tokens = 0

    def update(self, window: Window, logits: Tensor, other: Tensor | None) -> None:
        """Add the divergences of one window."""
        log_q = window.predictions(logits).log_softmax(-1)
        log_p = window.predictions(cast("Tensor", other)).log_softmax(-1)
        self._sum += (log_p.exp() * (log_p - log_q)).double().sum().item()
        self._tokens += log_p.shape[0]

    def value(self) -> float:
        """The mean."""
        return self._sum / self._tokens
