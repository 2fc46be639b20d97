"""Statistic ``expert_mean``: what every routed expert gives on average, all on the same tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.expert_alone import AloneCollector, AloneStatistic, Sublayer
from surgeon.calibrate.statistic import Collector, Run, statistics
from surgeon.calibrate.sublayer_calls import SublayerCall

__all__ = ["ExpertMean"]


@statistics.register("expert_mean")
@dataclass(frozen=True)
class ExpertMean(AloneStatistic):
    """Mean output of each expert over all tokens, given to it or not, by the name of the experts' Axis.

    Result [experts, hidden] float64, gates not applied: what HC-SMoE (Chen et al. 2024, arXiv 2410.08589)
    compares experts by. Every expert runs on at most about `tokens` tokens. Where the gate is on what
    enters an expert, its outputs carry it.
    """

    statistic: ClassVar[str] = "expert_mean"
    tokens: int = 8192
    sublayers: tuple[Sublayer, ...] = ()

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Means(self.sublayers, self.tokens, run)


class _Means(AloneCollector):
    def add(self, name: str, call: SublayerCall) -> None:
        sublayer = self.sublayers[name]
        outputs = [self.alone(sublayer, call, expert).outputs_NH for expert in range(self.size(sublayer))]
        self.merge({f"sum/{name}": torch.stack([one.double().sum(0) for one in outputs])})
        self.merge({f"count/{name}": torch.tensor([[len(one)] for one in outputs], device=outputs[0].device)})

    def result(self) -> Mapping[str, Tensor]:
        return {
            axis: self.sums[f"sum/{axis}"] / self.sums[f"count/{axis}"].clamp(min=1)
            for axis in self.sublayers
        }
