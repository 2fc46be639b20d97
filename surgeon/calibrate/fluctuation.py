"""Statistic ``fluctuation``: what the released code of FLAP keeps of the inputs, running quirks included.

Its paper (An et al. 2023, arXiv 2312.11983) calls it the variance of the input, which is
``InputMoment("variance")``. The code updates its mean in place before it takes the deviation from "the
old mean", so both factors use the new one; the first sequence adds nothing; sums over tokens are divided
by sequences. One update a sequence, so batches are single samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from surgeon.calibrate.consumers import consumer_params
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.taps import Entering
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group

__all__ = ["Fluctuation"]


@statistics.register("fluctuation")
@dataclass(frozen=True)
class Fluctuation(Statistic):
    """``baseline``, ``fluctuation`` or ``scaler`` of each input feature of a matrix; [features] float64.

    `part`: the running mean, the running "variance", or the running mean of a sequence's squared norm.
    """

    statistic: ClassVar[str] = "fluctuation"
    inside: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    in_order: ClassVar[bool] = True
    part: Literal["baseline", "fluctuation", "scaler"] = "fluctuation"
    params: tuple[str, ...] | None = None
    """Matrices to watch; None for all."""

    def on(self, graph: Graph, groups: Collection[Group]) -> Fluctuation:
        """Only the parameters that contract an Axis of `groups`."""
        return replace(self, params=consumer_params(graph, groups))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Released(self, run)


class _Released(Collector):
    def __init__(self, key: Fluctuation, run: Run) -> None:
        self.part = key.part
        self.sequences: dict[str, int] = {}
        self.baseline: dict[str, Tensor] = {}
        self.value: dict[str, Tensor] = {}
        run.taps.subscribe(key.params, self._see)

    def observe(self, observation: Observation) -> None:
        return

    def result(self) -> Mapping[str, Tensor]:
        return self.baseline if self.part == "baseline" else self.value

    def state(self) -> Mapping[str, Tensor]:
        counts = {name: torch.tensor(count) for name, count in self.sequences.items()}
        kept = (("sequences", counts), ("baseline", self.baseline), ("value", self.value))
        return {f"{part}/{name}": value for part, found in kept for name, value in found.items()}

    def merge(self, state: Mapping[str, Tensor]) -> None:
        if self.sequences:
            raise SurgeonError("two running means of FLAP's released code cannot be merged")
        for key, value in state.items():
            part, _, name = key.partition("/")
            getattr(self, part)[name] = int(value) if part == "sequences" else value

    def _see(self, seen: Entering) -> None:
        if seen.slices is not None:
            raise SurgeonError(
                f"'{seen.param}' is a stack of matrices; the released code of FLAP knows no experts",
                hint="criterion: {criterion: flap, variant: paper}",
            )
        name, x_TF = seen.param, seen.rows_NF.double()
        if name not in self.sequences:
            self.sequences[name] = 0
            self.baseline[name] = torch.zeros_like(x_TF[0])
            self.value[name] = torch.zeros_like(x_TF[0])
        done = self.sequences[name]
        self.sequences[name] = done + 1
        self.baseline[name] = (self.baseline[name] * done + x_TF.mean(0)) / (done + 1)
        if self.part == "scaler":
            self.value[name] = (self.value[name] * done + x_TF.square().sum(0)) / (done + 1)
        elif done:
            deviation = (x_TF - self.baseline[name]).square().sum(0)
            self.value[name] = self.value[name] * (done - 1) / done + deviation / (done + 1)
