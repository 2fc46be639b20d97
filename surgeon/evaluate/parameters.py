"""Number of parameters."""

from __future__ import annotations

from torch import Tensor, nn

from surgeon.evaluate.metric import ModelMetric, metrics

__all__ = ["Parameters"]


@metrics.register("parameters")
class Parameters(ModelMetric):
    """Tied tensors count once, buffers do not count."""

    name = "parameters"
    unit = ""
    better = "lower"

    def measure(self, model: nn.Module, prompt: Tensor) -> float:
        """The number of parameters."""
        return float(sum(parameter.numel() for parameter in model.parameters()))
