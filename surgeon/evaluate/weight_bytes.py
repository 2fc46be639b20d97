"""Bytes of the weights."""

from __future__ import annotations

from torch import Tensor, nn

from surgeon.evaluate.metric import ModelMetric, metrics

__all__ = ["WeightBytes"]


@metrics.register("bytes")
class WeightBytes(ModelMetric):
    """Bytes of all parameters in the dtype that they have; tied tensors count once."""

    name = "bytes"
    unit = "B"
    better = "lower"

    def measure(self, model: nn.Module, prompt: Tensor) -> float:
        """The number of bytes."""
        return float(sum(p.numel() * p.element_size() for p in model.parameters()))
