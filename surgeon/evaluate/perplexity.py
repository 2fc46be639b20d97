"""Perplexity: exp of the mean negative log-likelihood of the scored tokens."""

from __future__ import annotations

import math
import sys

from torch import Tensor
from torch.nn.functional import cross_entropy

from surgeon.evaluate.metric import TokenMetric, metrics
from surgeon.evaluate.windows import Window

__all__ = ["Perplexity"]


@metrics.register("perplexity")
class Perplexity(TokenMetric):
    """Mean over tokens, not over windows; summed in float64 of float32 log-probabilities."""

    name = "perplexity"
    unit = ""
    better = "lower"

    def __init__(self) -> None:
        self._loss = 0.0
        self._tokens = 0

    def update(self, window: Window, logits: Tensor, other: Tensor | None) -> None:
        """Add the losses of one window."""
        losses = cross_entropy(window.predictions(logits), window.targets, reduction="none")
        self._loss += losses.double().sum().item()
        self._tokens += losses.numel()

    def value(self) -> float:
        """The perplexity; infinite where it is beyond a float."""
        mean = self._loss / self._tokens
        return math.exp(mean) if mean < math.log(sys.float_info.max) else math.inf
