"""Statistic ``absolute_gradient``: mean size of the gradients of single samples, per parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from surgeon.calibrate.loss_gradient import LossGradient
from surgeon.calibrate.statistic import Collector, Observation, Run, statistics
from surgeon.calibrate.summing import Summing

__all__ = ["AbsoluteGradient"]


@statistics.register("absolute_gradient")
@dataclass(frozen=True)
class AbsoluteGradient(LossGradient):
    """``sum_j |g_j| / N`` with g_j the gradient of sample j's mean loss; result [shape of the parameter].

    The l1 gradients of GBLM-Pruner (Das, Ma, Shen 2023, arXiv 2311.04902), up to the factor N.
    """

    statistic: ClassVar[str] = "absolute_gradient"
    per_sample: ClassVar[bool] = True

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _MeanAbsolute(self, run.samples)


class _MeanAbsolute(Summing):
    def __init__(self, key: AbsoluteGradient, samples: int) -> None:
        super().__init__()
        self.key = key
        self.samples = samples

    def observe(self, observation: Observation) -> None:
        for name, gradient in self.key.among(observation):
            wide = gradient.abs().to(torch.promote_types(gradient.dtype, torch.float32))
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(wide)
            self.sums[name].add_(wide, alpha=1 / self.samples)
