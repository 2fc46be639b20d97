"""Statistic ``expert_match``: how alike the hidden channels of pairs of experts are on the same tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.expert_alone import AloneCollector, Sublayer, sublayers_of
from surgeon.calibrate.gram import block_gram
from surgeon.calibrate.statistic import Collector, Run, Statistic, statistics
from surgeon.calibrate.sublayer_calls import SublayerCall
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group

__all__ = ["ExpertMatch", "Pairs"]

Pairs = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
"""For each Axis of experts, pairs of experts."""


@statistics.register("expert_match")
@dataclass(frozen=True)
class ExpertMatch(Statistic):
    """Correlations of hidden activations, by the name of the experts' Axis, in the order of its pairs.

    Result [pairs, features, features] float64: Pearson's correlation, over all tokens, of each feature
    that enters the last matrix of the first expert of a pair with each of the second's; 0 for a feature
    that is constant. Both experts run on at most about `tokens` tokens.
    """

    statistic: ClassVar[str] = "expert_match"
    tokens: int = 8192
    pairs: Pairs = ()
    sublayers: tuple[Sublayer, ...] = ()

    def on(self, graph: Graph, groups: Collection[Group]) -> ExpertMatch:
        """The experts that `groups` count."""
        return replace(self, sublayers=sublayers_of(graph, groups))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Matches(self, run)


class _Matches(AloneCollector):
    def __init__(self, key: ExpertMatch, run: Run) -> None:
        super().__init__(key.sublayers, key.tokens, run)
        self.pairs = dict(key.pairs)

    def result(self) -> Mapping[str, Tensor]:
        found = {}
        for sublayer in self.sublayers:
            pairs = self.pairs.get(sublayer.experts.axis, ())
            if pairs:
                found[sublayer.experts.axis] = torch.stack([self._match(sublayer, *p) for p in pairs])
        return found

    def _match(self, sublayer: Sublayer, one: int, other: int) -> Tensor:
        """Correlations [features, features]."""
        sums: list[Tensor] = []
        for call in self.held(sublayer):
            x_TF, y_TF = self._hidden(sublayer, call, one), self._hidden(sublayer, call, other)
            if len(x_TF) != len(y_TF):
                raise SurgeonError(
                    f"experts {one} and {other} of '{sublayer.experts.axis}' do not run on the same tokens",
                    hint="align: weights",
                )
            both = torch.cat([x_TF, y_TF, x_TF.new_ones(len(x_TF), 1)], 1)
            gram = block_gram(both)
            sums = [sums[0] + gram] if sums else [gram]
        return _correlations(sums[0])

    def _hidden(self, sublayer: Sublayer, call: SublayerCall, expert: int) -> Tensor:
        return self.alone(sublayer, call, expert).rows[sublayer.experts.outlet]


def _correlations(gram: Tensor) -> Tensor:
    """From sums of products of two sets of features and a constant 1."""
    count = gram[-1, -1]
    means = gram[-1, :-1] / count
    covariance = gram[:-1, :-1] / count - means[:, None] * means
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    scale = deviation[:, None] * deviation
    whole = torch.where(scale > 0, covariance / scale.where(scale > 0, 1.0), 0.0)
    half = len(whole) // 2
    return whole[:half, half:]
