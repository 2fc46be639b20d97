"""Statistic ``expert_load``: what every routed expert was given, and what it gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.expert_statistic import ExpertStatistic
from surgeon.calibrate.experts import Experts
from surgeon.calibrate.gated import Gated
from surgeon.calibrate.input_gates import InputGates
from surgeon.calibrate.statistic import Collector, Observation, Run, statistics
from surgeon.rebuild.placed import tensor_at

__all__ = ["ExpertLoad", "Load"]

Load = Literal["count", "gate", "norm", "gated_norm", "peak"]


@statistics.register("expert_load")
@dataclass(frozen=True)
class ExpertLoad(ExpertStatistic):
    """Sums over the tokens that each expert was given, by the name of the stack of its last matrices.

    ``count`` of tokens; ``gate``, the router's own factors; ``norm`` of what the expert gave, gate not
    applied; ``gated_norm``, gate times norm; ``peak``, the largest element that it gave (no sum). Result
    [experts] float64. Where the gate is on what enters an expert, its outputs carry it: norms are of what
    was gated, and none is gated twice.
    """

    statistic: ClassVar[str] = "expert_load"
    load: Load = "count"
    experts: tuple[Experts, ...] = ()

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Load(self, run)


class _Load(Collector):
    def __init__(self, key: ExpertLoad, run: Run) -> None:
        self.load = key.load
        self.found: dict[str, Tensor] = {}
        for experts in key.experts:
            stack = tensor_at(run.module, experts.outlet)
            start = -torch.inf if key.load == "peak" else 0.0
            self.found[experts.outlet] = torch.full(
                (len(stack),), start, dtype=torch.float64, device=stack.device
            )
            run.taps.follow(experts.outlet, experts.inlets if key.load == "gate" else (), self._see)
        self.inputs = InputGates(run.module, key.experts if key.load == "gate" else ())

    def attach(self) -> tuple[RemovableHandle, ...]:
        return self.inputs.attach()

    def observe(self, observation: Observation) -> None:
        return

    def result(self) -> Mapping[str, Tensor]:
        if self.load == "peak":
            return {name: torch.where(value.isfinite(), value, 0.0) for name, value in self.found.items()}
        return self.found

    def state(self) -> Mapping[str, Tensor]:
        return self.found

    def merge(self, state: Mapping[str, Tensor]) -> None:
        together = torch.maximum if self.load == "peak" else torch.add
        self.found = {name: together(total, state[name]) for name, total in self.found.items()}

    def _see(self, seen: Gated) -> None:
        total = self.found[seen.outlet]
        if self.load == "peak":
            total.scatter_reduce_(0, seen.slice_N, seen.outputs_NH.amax(-1).double(), "amax")
        else:
            total.index_add_(0, seen.slice_N, self._rows(seen))

    def _rows(self, seen: Gated) -> Tensor:
        """What each row adds, [rows] float64."""
        ones = torch.ones(len(seen.slice_N), dtype=torch.float64, device=seen.slice_N.device)
        gates = ones if seen.gates_N is None else seen.gates_N.double()
        match self.load:
            case "gate":
                return self.inputs.of(seen) if seen.gates_N is None else gates
            case "norm" | "gated_norm":
                wide = seen.outputs_NH.to(torch.promote_types(seen.outputs_NH.dtype, torch.float32))
                norms = wide.norm(dim=-1).double()
                return norms * gates if self.load == "gated_norm" else norms
            case _:
                return ones
