"""Statistic ``gram``: second moments of what enters a parameter, of all pairs of features."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.consumers import consumer_params
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.taps import Entering
from surgeon.graph import Graph, Group

__all__ = ["Gram", "block_gram"]

_BLOCK = 4096
"""Rows of one product; longer ones would lose digits of float32."""


@statistics.register("gram")
@dataclass(frozen=True)
class Gram(Statistic):
    """``X^T X / n`` over the rows X that enter a matrix, by the matrix's name.

    Result [features, features] float64, or [slices, features, features] for a stack of matrices, each
    over the tokens that it got (zero for one that got none). With `constant`, a feature that is always 1
    is appended. Products of up to 4096 rows in float32, or in float64 where the model is, summed in
    float64.
    """

    statistic: ClassVar[str] = "gram"
    constant: bool = False
    params: tuple[str, ...] | None = None
    """Matrices to watch; None for all."""

    def on(self, graph: Graph, groups: Collection[Group]) -> Gram:
        """Only the parameters that contract an Axis of `groups`."""
        return replace(self, params=consumer_params(graph, groups))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Grams(self, run)


def block_gram(rows_NF: Tensor, other_NG: Tensor | None = None) -> Tensor:
    """``X^T Y`` (or ``X^T X``) in float64, from products in float32 or wider of at most 4096 rows."""
    wide = torch.promote_types(rows_NF.dtype, torch.float32)
    total: Tensor | None = None
    for start in range(0, len(rows_NF), _BLOCK):
        x = rows_NF[start : start + _BLOCK].to(wide)
        y = x if other_NG is None else other_NG[start : start + _BLOCK].to(wide)
        product = (x.T @ y).double()
        total = product if total is None else total.add_(product)
    if total is None:
        columns = (rows_NF if other_NG is None else other_NG).shape[1]
        return torch.zeros(rows_NF.shape[1], columns, dtype=torch.float64, device=rows_NF.device)
    return total


class _Grams(Collector):
    def __init__(self, key: Gram, run: Run) -> None:
        self.constant = key.constant
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.stacked: dict[str, bool] = {}
        self.last: tuple[Tensor, Tensor] | None = None
        run.taps.subscribe(key.params, self._see)

    def observe(self, observation: Observation) -> None:
        self.last = None

    def result(self) -> Mapping[str, Tensor]:
        means = {name: total / self.counts[name].clamp(min=1) for name, total in self.sums.items()}
        return {name: mean if self.stacked[name] else mean[0] for name, mean in means.items()}

    def _see(self, seen: Entering) -> None:
        if seen.slice_N is None:
            if self.last is None or self.last[0] is not seen.rows_NF:
                self.last = (seen.rows_NF, block_gram(self._with_constant(seen.rows_NF)))
            self._add(seen, 0, self.last[1], len(seen.rows_NF))
            return
        for index in seen.slice_N.unique().tolist():
            rows_NF = self._with_constant(seen.rows_NF[seen.slice_N == index])
            self._add(seen, index, block_gram(rows_NF), len(rows_NF))

    def _add(self, seen: Entering, index: int, gram: Tensor, rows: int) -> None:
        name = seen.param
        if name not in self.sums:
            slices = seen.slices or 1
            self.sums[name] = torch.zeros(slices, *gram.shape, dtype=torch.float64, device=gram.device)
            self.counts[name] = torch.zeros(slices, 1, 1, dtype=torch.float64, device=gram.device)
            self.stacked[name] = seen.slices is not None
        self.sums[name][index] += gram
        self.counts[name][index] += rows

    def _with_constant(self, rows_NF: Tensor) -> Tensor:
        return torch.cat([rows_NF, rows_NF.new_ones(len(rows_NF), 1)], 1) if self.constant else rows_NF
