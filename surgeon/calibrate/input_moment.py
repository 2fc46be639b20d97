"""Statistic ``input_moment``: mean, variance, second moment or mean size of what enters a parameter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from surgeon.calibrate.consumers import consumer_params
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.taps import Entering
from surgeon.graph import Graph, Group

__all__ = ["InputMoment", "Moment"]

Moment = Literal["count", "mean", "variance", "second", "mean_abs"]


@statistics.register("input_moment")
@dataclass(frozen=True)
class InputMoment(Statistic):
    """A moment over all tokens, of each input feature of a matrix, by the matrix's name.

    Result [features] float64, or [slices, features] for a stack of matrices such as experts, each over
    the tokens that it got; ``count`` has no dim for features. The variance is that of the population
    (divided by the count). A matrix that nothing entered is absent. Batches are reduced in float32 or
    wider and merged in float64 (Chan, Golub, LeVeque 1979), so the batch size does not matter.
    """

    statistic: ClassVar[str] = "input_moment"
    moment: Moment = "mean"
    params: tuple[str, ...] | None = None
    """Matrices to watch; None for all."""

    def on(self, graph: Graph, groups: Collection[Group]) -> InputMoment:
        """Only the parameters that contract an Axis of `groups`."""
        return replace(self, params=consumer_params(graph, groups))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Moments(self, run)


class _Moments(Collector):
    def __init__(self, key: InputMoment, run: Run) -> None:
        self.moment: Moment = key.moment
        self.found: dict[str, _Running] = {}
        run.taps.subscribe(key.params, self._see)

    def observe(self, observation: Observation) -> None:
        return

    def result(self) -> Mapping[str, Tensor]:
        return {name: running.value(self.moment) for name, running in self.found.items()}

    def _see(self, seen: Entering) -> None:
        slices = seen.slices or 1
        if seen.param not in self.found:
            self.found[seen.param] = _Running(slices, seen)
        running = self.found[seen.param]
        if seen.slice_N is None:
            running.add(0, seen.rows_NF, self.moment)
            return
        for index in seen.slice_N.unique().tolist():
            running.add(index, seen.rows_NF[seen.slice_N == index], self.moment)


class _Running:
    """Count, first moment and sum of squared deviations of every slice, merged batch by batch."""

    def __init__(self, slices: int, seen: Entering) -> None:
        shape = (slices, seen.rows_NF.shape[-1])
        self.stacked = seen.slices is not None
        device = seen.rows_NF.device
        self.count = torch.zeros(slices, 1, dtype=torch.float64, device=device)
        self.first = torch.zeros(shape, dtype=torch.float64, device=device)
        self.deviation = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, index: int, rows_NF: Tensor, moment: Moment) -> None:
        """Merge the rows of one slice."""
        n = len(rows_NF)
        before = self.count[index].clone()
        self.count[index] += n
        if moment == "count":
            return
        wide = rows_NF.to(torch.promote_types(rows_NF.dtype, torch.float32))
        if moment == "mean_abs":
            self.first[index] += (wide.abs().mean(0).double() - self.first[index]) * (n / self.count[index])
            return
        if moment == "mean":
            mean, variance = wide.mean(0), None
        else:
            variance, mean = torch.var_mean(wide, 0, correction=0)
        step = mean.double() - self.first[index]
        self.first[index] += step * (n / self.count[index])
        if variance is not None:
            self.deviation[index] += variance.double() * n + step.square() * before * n / self.count[index]

    def value(self, moment: Moment) -> Tensor:
        """The moment, [slices, features], or [features] where there are no slices."""
        variance = self.deviation / self.count.clamp(min=1)
        match moment:
            case "count":
                found = self.count[:, 0]
            case "mean" | "mean_abs":
                found = self.first
            case "variance":
                found = variance
            case "second":
                found = variance + self.first.square()
        return found if self.stacked else found[0]
