"""Statistic ``expert_pairs``: how often two routed experts were given the same token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.expert_statistic import ExpertStatistic
from surgeon.calibrate.experts import Experts
from surgeon.calibrate.gated import Gated
from surgeon.calibrate.statistic import Collector, Run, statistics
from surgeon.calibrate.summing import Summing
from surgeon.rebuild.placed import tensor_at

__all__ = ["ExpertPairs"]


@statistics.register("expert_pairs")
@dataclass(frozen=True)
class ExpertPairs(ExpertStatistic):
    """Co-activation: tokens given to both of two experts [experts, experts] float64, by the stack's name.

    The diagonal counts the tokens of each expert. Where the module of the experts is told whom each token
    goes to, that is counted; else what rows it computed.
    """

    statistic: ClassVar[str] = "expert_pairs"
    experts: tuple[Experts, ...] = ()

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Pairs(self, run)


class _Pairs(Summing):
    def __init__(self, key: ExpertPairs, run: Run) -> None:
        super().__init__()
        self.sizes = {one.outlet: len(tensor_at(run.module, one.outlet)) for one in key.experts}
        self.parts = {name: run.module.get_submodule(name.rpartition(".")[0]) for name in self.sizes}
        self.told: set[str] = set()
        for name in self.sizes:
            run.taps.follow(name, (), self._see)

    def attach(self) -> tuple[RemovableHandle, ...]:
        return tuple(
            part.register_forward_pre_hook(self._before(name), with_kwargs=True)
            for name, part in self.parts.items()
        )

    def _before(self, outlet: str) -> Callable[..., None]:
        def before(part: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            for given in (*args, *kwargs.values()):
                if isinstance(given, Tensor) and given.ndim == 2 and not given.is_floating_point():
                    self.told.add(outlet)
                    self._count(outlet, given)
                    return

        return before

    def _see(self, seen: Gated) -> None:
        if seen.outlet in self.told:
            return
        tokens = seen.product_rows // seen.slices
        given = torch.zeros(tokens, seen.slices, dtype=torch.float64, device=seen.slice_N.device)
        given[seen.row_N % tokens, seen.slice_N] = 1
        self.merge({seen.outlet: given.T @ given})

    def _count(self, outlet: str, chosen_TK: Tensor) -> None:
        shape = (len(chosen_TK), self.sizes[outlet])
        given = torch.zeros(shape, dtype=torch.float64, device=chosen_TK.device)
        given.scatter_(1, chosen_TK.long(), 1.0)
        self.merge({outlet: given.T @ given})
