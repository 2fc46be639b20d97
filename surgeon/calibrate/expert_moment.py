"""Statistic ``expert_moment``: router-weighted second moments of what enters the stacks of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.expert_statistic import ExpertStatistic
from surgeon.calibrate.experts import Experts
from surgeon.calibrate.gated import Gated
from surgeon.calibrate.statistic import Collector, Run, statistics
from surgeon.calibrate.summing import Summing

__all__ = ["ExpertMoment"]


@statistics.register("expert_moment")
@dataclass(frozen=True)
class ExpertMoment(ExpertStatistic):
    """Sum over its tokens of ``(gate * x)^2`` for each input feature x of each expert, by the stack's name.

    Result float64, laid along the contracted dim of the stack: [experts, 1, features] or [experts,
    features, 1]. The squared norms that MoE-Pruner (Xie et al. 2024, arXiv 2410.12013) weighs weights
    with, of what enters an expert and of its hidden activations.
    """

    statistic: ClassVar[str] = "expert_moment"
    experts: tuple[Experts, ...] = ()

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Moments(self, run)


class _Moments(Summing):
    def __init__(self, key: ExpertMoment, run: Run) -> None:
        super().__init__()
        for experts in key.experts:
            run.taps.follow(experts.outlet, experts.inlets, self._see)

    def result(self) -> Mapping[str, Tensor]:
        """Laid along the contracted dim."""
        found = {}
        for key, total in self.sums.items():
            dim, _, name = key.partition("/")
            found[name] = total.unsqueeze(3 - int(dim))
        return found

    def _see(self, seen: Gated) -> None:
        for name, rows_NF in seen.rows.items():
            key = f"{seen.dims[name]}/{name}"
            if key not in self.sums:
                shape = (seen.slices, rows_NF.shape[-1])
                self.sums[key] = torch.zeros(shape, dtype=torch.float64, device=rows_NF.device)
            weighted = rows_NF.to(torch.promote_types(rows_NF.dtype, torch.float32))
            if seen.gates_N is not None:
                weighted = weighted * seen.gates_N[:, None]
            self.sums[key].index_add_(0, seen.slice_N, weighted.double().square_())
