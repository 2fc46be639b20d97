"""Jensen-Shannon divergence between the model and another one, per token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surgeon.evaluate.compared import Compared
from surgeon.evaluate.metric import metrics

__all__ = ["JsDivergence"]


@metrics.register("js")
class JsDivergence(Compared):
    """Mean over tokens in nats: symmetric, from 0 (the same) to ln 2 (nothing in common)."""

    name = "js"
    unit = "nats/token"
    better = "lower"

    def between(self, own: Tensor, other: Tensor) -> Tensor:
        """The divergence of each token."""
        log_q, log_p = own.log_softmax(-1), other.log_softmax(-1)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        both = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
        return both.double().sum(-1) / 2
