"""Statistic ``squared_gradient``: the diagonal of the Fisher information, per parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from surgeon.calibrate.loss_gradient import LossGradient
from surgeon.calibrate.statistic import Collector, Observation, Run, statistics
from surgeon.calibrate.summing import Summing

__all__ = ["SquaredGradient"]


@statistics.register("squared_gradient")
@dataclass(frozen=True)
class SquaredGradient(LossGradient):
    """``sum_j g_j^2 / N`` with g_j the gradient of sample j's mean loss; result [shape of the parameter].

    The ``acc_grad`` of LLM-Pruner (Ma, Fang, Wang 2023, arXiv 2305.11627): one backward a sample.
    """

    statistic: ClassVar[str] = "squared_gradient"
    per_sample: ClassVar[bool] = True

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _MeanSquare(self, run.samples)


class _MeanSquare(Summing):
    def __init__(self, key: SquaredGradient, samples: int) -> None:
        super().__init__()
        self.key = key
        self.samples = samples

    def observe(self, observation: Observation) -> None:
        for name, gradient in self.key.among(observation):
            wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(wide)
            self.sums[name].addcmul_(wide, wide, value=1 / self.samples)
