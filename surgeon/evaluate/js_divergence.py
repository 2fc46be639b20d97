"""Jensen-Shannon divergence between the model and another one, per token."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from surgeon.evaluate.metric import TokenMetric, metrics
from surgeon.evaluate.windows import Window

__all__ = ["JsDivergence"]


@metrics.register("js")
class JsDivergence(TokenMetric):
    """Mean over tokens in nats: symmetric, from 0 (the same) to ln 2 (nothing in common)."""

    name = "js"
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
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        both = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
        self._sum += both.double().sum().item() / 2
        self._tokens += log_p.shape[0]

    def value(self) -> float:
        """The mean."""
        return self._sum / self._tokens
