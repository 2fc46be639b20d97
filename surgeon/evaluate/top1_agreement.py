"""Top-1 agreement: how often the model and another one would say the same next token."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from surgeon.evaluate.metric import TokenMetric, metrics
from surgeon.evaluate.windows import Window

__all__ = ["Top1Agreement"]


@metrics.register("top1_agreement")
class Top1Agreement(TokenMetric):
    """Share of scored positions where the most likely tokens are equal."""

    name = "top1_agreement"
    unit = "share"
    better = "higher"
    against = True

    def __init__(self) -> None:
        self._same = 0
        self._tokens = 0

    def update(self, window: Window, logits: Tensor, other: Tensor | None) -> None:
        """Count one window."""
        mine = window.predictions(logits).argmax(-1)
        theirs = window.predictions(cast("Tensor", other)).argmax(-1)
        self._same += int((mine == theirs).sum())
        self._tokens += mine.numel()

    def value(self) -> float:
        """The share."""
        return self._same / self._tokens
