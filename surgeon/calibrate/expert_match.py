"""Statistic ``expert_match``: how alike the hidden channels of pairs of experts are on the same tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.expert_alone import AloneCollector, AloneStatistic, Sublayer
from surgeon.calibrate.gram import block_gram
from surgeon.calibrate.statistic import Collector, Run, statistics
from surgeon.calibrate.sublayer_calls import SublayerCall
from surgeon.errors import SurgeonError

__all__ = ["ExpertMatch", "Pairs"]

Pairs = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
"""For each Axis of experts, pairs of experts."""


@statistics.register("expert_match")
@dataclass(frozen=True)
class ExpertMatch(AloneStatistic):
    """Correlations of hidden activations, by the name of the experts' Axis, in the order of its pairs.

    Result [pairs, features, features] float64: Pearson's correlation, over all tokens, of each feature
    that enters the last matrix of the first expert of a pair with each of the second's; 0 for a feature
    that is constant. Both experts run on at most about `tokens` tokens.
    """

    statistic: ClassVar[str] = "expert_match"
    tokens: int = 8192
    pairs: Pairs = ()
    sublayers: tuple[Sublayer, ...] = ()

    def at(self, block: str) -> ExpertMatch:
        """The sublayers of one Block, and the pairs in them."""
        own = super().at(block)
        axes = {one.experts.axis for one in own.sublayers}
        return replace(own, pairs=tuple(pair for pair in self.pairs if pair[0] in axes))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Matches(self, run)


class _Matches(AloneCollector):
    def __init__(self, key: ExpertMatch, run: Run) -> None:
        super().__init__(key.sublayers, key.tokens, run)
        self.pairs = dict(key.pairs)

    def add(self, name: str, call: SublayerCall) -> None:
        pairs = self.pairs.get(name, ())
        hidden = {
            e: self._hidden(self.sublayers[name], call, e)
            for e in sorted({e for pair in pairs for e in pair})
        }
        for one, other in pairs:
            if len(hidden[one]) != len(hidden[other]):
                raise SurgeonError(
                    f"experts {one} and {other} of '{name}' do not run on the same tokens",
                    hint="align: weights",
                )
            self.merge({f"{name}/{one}/{other}": block_gram(hidden[one], hidden[other])})
        for expert, x_TF in hidden.items():
            wide = x_TF.double()
            moments = [wide.new_full((wide.shape[1],), len(wide)), wide.sum(0), wide.square().sum(0)]
            self.merge({f"{name}/{expert}": torch.stack(moments)})

    def result(self) -> Mapping[str, Tensor]:
        return {
            axis: torch.stack([self._correlation(axis, *pair) for pair in pairs])
            for axis, pairs in self.pairs.items()
            if pairs
        }

    def _correlation(self, axis: str, one: int, other: int) -> Tensor:
        products = self.sums[f"{axis}/{one}/{other}"]
        count = self.sums[f"{axis}/{one}"][0, :, None]
        (mean, deviation), (mean2, deviation2) = (_spread(self.sums[f"{axis}/{e}"]) for e in (one, other))
        scale = deviation[:, None] * deviation2
        covariance = products / count - mean[:, None] * mean2
        return torch.where(scale > 0, covariance / scale.where(scale > 0, 1.0), 0.0)

    def _hidden(self, sublayer: Sublayer, call: SublayerCall, expert: int) -> Tensor:
        return self.alone(sublayer, call, expert).rows[sublayer.experts.outlet]


def _spread(moments_3F: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation from counts, sums and sums of squares."""
    count, total, square = moments_3F
    mean = total / count
    return mean, (square / count - mean.square()).clamp(min=0).sqrt()
