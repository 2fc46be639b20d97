"""Statistic ``expert_mean``: what every routed expert gives on average, all on the same tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.expert_alone import AloneCollector, Sublayer, sublayers_of
from surgeon.calibrate.statistic import Collector, Run, Statistic, statistics
from surgeon.graph import Graph, Group

__all__ = ["ExpertMean"]


@statistics.register("expert_mean")
@dataclass(frozen=True)
class ExpertMean(Statistic):
    """Mean output of each expert over all tokens, given to it or not, by the name of the experts' Axis.

    Result [experts, hidden] float64, gates not applied: what HC-SMoE (Chen et al. 2024, arXiv 2410.08589)
    compares experts by. Every expert runs on at most about `tokens` tokens. Where the gate is on what
    enters an expert, its outputs carry it.
    """

    statistic: ClassVar[str] = "expert_mean"
    tokens: int = 8192
    sublayers: tuple[Sublayer, ...] = ()

    def on(self, graph: Graph, groups: Collection[Group]) -> ExpertMean:
        """The experts that `groups` count."""
        return replace(self, sublayers=sublayers_of(graph, groups))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Means(self.sublayers, self.tokens, run)


class _Means(AloneCollector):
    def result(self) -> Mapping[str, Tensor]:
        return {one.experts.axis: self._means(one) for one in self.sublayers}

    def _means(self, sublayer: Sublayer) -> Tensor:
        rows = [self._mean(sublayer, expert) for expert in range(self.size(sublayer))]
        return torch.stack(rows)

    def _mean(self, sublayer: Sublayer, expert: int) -> Tensor:
        total, count = torch.zeros((), dtype=torch.float64), 0
        for call in self.held(sublayer):
            outputs_NH = self.alone(sublayer, call, expert).outputs_NH
            total = total.to(outputs_NH.device) + outputs_NH.double().sum(0)
            count += len(outputs_NH)
        return total / max(count, 1)
