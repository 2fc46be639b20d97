"""Metrics that say of every scored token how far the model's prediction is from another one's."""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

from torch import Tensor

from surgeon.evaluate.metric import TokenMetric
from surgeon.evaluate.windows import Window

__all__ = ["Compared"]


class Compared(TokenMetric):
    """The mean over tokens of one number a token; a subclass says which."""

    against = True

    def __init__(self) -> None:
        self._sum = 0.0
        self._tokens = 0

    @abstractmethod
    def between(self, own: Tensor, other: Tensor) -> Tensor:
        """The number of each token, [tokens], from logits [tokens, vocab] of the model and of the other."""

    def update(self, window: Window, logits: Tensor, other: Tensor | None) -> None:
        """Add the numbers of one window."""
        found = self.between(window.predictions(logits), window.predictions(cast("Tensor", other)))
        self._sum += found.double().sum().item()
        self._tokens += len(found)

    def value(self) -> float:
        """The mean."""
        return self._sum / self._tokens
