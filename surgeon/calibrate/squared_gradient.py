"""Statistic ``squared_gradient``: the diagonal of the Fisher information, per parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics

__all__ = ["SquaredGradient"]


@statistics.register("squared_gradient")
@dataclass(frozen=True)
class SquaredGradient(Statistic):
    """``sum_j g_j^2 / N`` with g_j the gradient of sample j's mean loss; result [shape of the parameter].

    The ``acc_grad`` of LLM-Pruner (Ma, Fang, Wang 2023, arXiv 2305.11627): one backward a sample.
    """

    statistic: ClassVar[str] = "squared_gradient"
    gradients: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _MeanSquare(run.samples)


class _MeanSquare(Collector):
    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.sums: dict[str, Tensor] = {}

    def observe(self, observation: Observation) -> None:
        for name, gradient in observation.gradients.items():
            wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(wide)
            self.sums[name].addcmul_(wide, wide, value=1 / self.samples)

    def result(self) -> Mapping[str, Tensor]:
        return self.sums
