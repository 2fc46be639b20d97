"""Top-1 agreement: how often the model and another one would say the same next token."""

from __future__ import annotations

from torch import Tensor

from surgeon.evaluate.compared import Compared
from surgeon.evaluate.metric import metrics

__all__ = ["Top1Agreement"]


@metrics.register("top1_agreement")
class Top1Agreement(Compared):
    """Share of scored positions where the most likely tokens are equal."""

    name = "top1_agreement"
    unit = "share"
    better = "higher"

    def between(self, own: Tensor, other: Tensor) -> Tensor:
        """1 where they agree, else 0."""
        return own.argmax(-1) == other.argmax(-1)
