"""Statistic ``input_moment``: mean, variance, second moment or mean size of what enters a parameter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
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
    inside: ClassVar[bool] = True
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
    """One moment; all of the same matrices in one run read one `_Shared`, which the first one owns."""

    def __init__(self, key: InputMoment, run: Run) -> None:
        self.moment: Moment = key.moment
        common = (InputMoment, key.params)
        self.owner = common not in run.common
        self.shared: _Shared = run.common.setdefault(common, _Shared())
        self.shared.wanted.add(key.moment)
        if self.owner:
            run.taps.subscribe(key.params, self.shared.see)

    def observe(self, observation: Observation) -> None:
        self.shared.last = None

    def result(self) -> Mapping[str, Tensor]:
        return {name: running.value(self.moment) for name, running in self.shared.found.items()}

    def state(self) -> Mapping[str, Tensor]:
        found = self.shared.found if self.owner else {}
        return {f"{part}/{name}": t for name, running in found.items() for part, t in running.state().items()}

    def merge(self, state: Mapping[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            part, _, name = key.partition("/")
            parts.setdefault(name, {})[part] = value
        for name, other in parts.items():
            if name in self.shared.found:
                self.shared.found[name].merge(other)
            else:
                self.shared.found[name] = _Running(**other)


class _Shared:
    """What entered some matrices, by their names."""

    def __init__(self) -> None:
        self.wanted: set[Moment] = set()
        self.found: dict[str, _Running] = {}
        self.last: tuple[Tensor, _Part] | None = None

    def see(self, seen: Entering) -> None:
        """Take in rows that entered a matrix; rows that enter several are reduced once."""
        slices = seen.slices or 1
        if seen.param not in self.found:
            self.found[seen.param] = _Running.zeros(slices, seen)
        running = self.found[seen.param]
        if seen.slice_N is None:
            if self.last is None or self.last[0] is not seen.rows_NF:
                self.last = (seen.rows_NF, _Part.of(seen.rows_NF, self.wanted))
            running.add(0, self.last[1])
            return
        for index in seen.slice_N.unique().tolist():
            running.add(index, _Part.of(seen.rows_NF[seen.slice_N == index], self.wanted))


@dataclass(frozen=True, eq=False)
class _Part:
    """Some rows: how many, and by feature their mean, sum of squared deviations from it, mean size."""

    rows: int
    mean: Tensor | None = None
    deviation: Tensor | None = None
    size: Tensor | None = None

    @classmethod
    def of(cls, rows_NF: Tensor, wanted: set[Moment]) -> _Part:
        """Reduced in float32 or wider, as far as `wanted` asks."""
        wide = rows_NF.to(torch.promote_types(rows_NF.dtype, torch.float32))
        mean = deviation = size = None
        if wanted & {"mean", "variance", "second"}:
            mean = wide.mean(0)
        if mean is not None and wanted & {"variance", "second"}:
            deviation = (wide - mean).square_().sum(0).double()
        if "mean_abs" in wanted:
            size = wide.abs().mean(0).double()
        return cls(len(rows_NF), None if mean is None else mean.double(), deviation, size)


@dataclass(eq=False)
class _Running:
    """Count [slices, 1], and [slices, features] mean, sum of squared deviations and mean size; float64."""

    count: Tensor
    mean: Tensor
    deviation: Tensor
    size: Tensor
    stacked: Tensor

    @classmethod
    def zeros(cls, slices: int, seen: Entering) -> _Running:
        """Before the first rows."""
        like = {"dtype": torch.float64, "device": seen.rows_NF.device}
        shape = (slices, seen.rows_NF.shape[-1])
        count = torch.zeros(slices, 1, **like)
        mean, deviation, size = (torch.zeros(shape, **like) for _ in range(3))
        return cls(count, mean, deviation, size, torch.tensor(seen.slices is not None))

    def add(self, index: int, part: _Part) -> None:
        """Merge the rows of one slice."""
        n, before = part.rows, self.count[index].clone()
        self.count[index] += n
        share = n / self.count[index]
        if part.mean is not None:
            step = part.mean - self.mean[index]
            self.mean[index] += step * share
            if part.deviation is not None:
                self.deviation[index] += part.deviation + step.square() * before * share
        if part.size is not None:
            self.size[index] += (part.size - self.size[index]) * share

    def state(self) -> Mapping[str, Tensor]:
        """All of it, by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def merge(self, other: Mapping[str, Tensor]) -> None:
        """Take in the state of another one."""
        before = self.count
        self.count = before + other["count"]
        share = other["count"] / self.count.clamp(min=1)
        step = other["mean"] - self.mean
        self.mean = self.mean + step * share
        self.deviation = self.deviation + other["deviation"] + step.square() * before * share
        self.size = self.size + (other["size"] - self.size) * share

    def value(self, moment: Moment) -> Tensor:
        """The moment, [slices, features], or [features] where there are no slices."""
        variance = self.deviation / self.count.clamp(min=1)
        match moment:
            case "count":
                found = self.count[:, 0]
            case "mean":
                found = self.mean
            case "mean_abs":
                found = self.size
            case "variance":
                found = variance
            case "second":
                found = variance + self.mean.square()
        return found if bool(self.stacked) else found[0]
