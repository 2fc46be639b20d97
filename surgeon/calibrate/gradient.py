"""Statistic ``gradient``: of the mean next-token loss over all calibration samples, per parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from surgeon.calibrate.loss_gradient import LossGradient
from surgeon.calibrate.statistic import Collector, Observation, Run, statistics
from surgeon.calibrate.summing import Summing

__all__ = ["Gradient"]


@statistics.register("gradient")
@dataclass(frozen=True)
class Gradient(LossGradient):
    """One mean over every predicted token, whatever the batch size; result [shape of the parameter].

    What LLM-Pruner calls the gradient (Ma, Fang, Wang 2023, arXiv 2305.11627): one backward of the mean
    loss with labels = inputs. Accumulated in float32 or wider, where the original adds in the dtype of
    the weights.
    """

    statistic: ClassVar[str] = "gradient"

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Mean(self, run.tokens)


class _Mean(Summing):
    def __init__(self, key: Gradient, tokens: int) -> None:
        super().__init__()
        self.key = key
        self.tokens = tokens

    def observe(self, observation: Observation) -> None:
        share = observation.tokens / self.tokens
        for name, gradient in self.key.among(observation):
            wide = torch.promote_types(gradient.dtype, torch.float32)
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(gradient, dtype=wide)
            self.sums[name].add_(gradient.to(wide), alpha=share)
