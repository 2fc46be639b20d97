"""Statistic ``router_moment``: second moments of what routers compute, alone or of sets of experts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from surgeon.calibrate.gram import block_gram
from surgeon.calibrate.routers import Router, router_of
from surgeon.calibrate.statistic import Collector, Run, Statistic, statistics
from surgeon.calibrate.summing import Summing
from surgeon.calibrate.taps import Entering
from surgeon.graph import Graph, Group
from surgeon.rebuild.placed import tensor_at

__all__ = ["Clusters", "Joint", "RouterMoment"]

Clusters = tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]
"""For each Axis of experts, sets of experts."""

Joint = Literal["max", "sum_gates"]
"""What the logit of a set of experts is: the largest, or that of the sum of their softmax gates."""


@statistics.register("router_moment")
@dataclass(frozen=True)
class RouterMoment(Statistic):
    """Sums over tokens, by the name of the experts' Axis, float64.

    Without `clusters`, ``Z^T Z`` [experts, experts] of the router's logits Z, before any softmax, sigmoid
    or correction. With `clusters`, ``A^T [A | M]`` [inputs + 1, inputs + 1 + clusters], where A is what
    enters the router and a constant 1, and M the logit of each set of experts, by `joint`: what a linear
    router that stands for these sets is fitted with.
    """

    statistic: ClassVar[str] = "router_moment"
    inside: ClassVar[bool] = True
    clusters: Clusters = ()
    joint: Joint = "max"
    routers: tuple[Router, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The routers' matrices."""
        return tuple(router.weight for router in self.routers)

    def at(self, block: str) -> RouterMoment:
        """The routers of one Block."""
        return replace(self, routers=tuple(r for r in self.routers if r.weight.startswith(f"{block}.")))

    def on(self, graph: Graph, groups: Collection[Group]) -> RouterMoment:
        """The routers of the experts that `groups` count.

        Raises:
            SurgeonError: a router is not one matrix.
        """
        found = [router_of(graph, group) for group in groups if group.kind == "expert"]
        return replace(self, routers=tuple(found))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Moments(self, run)


class _Moments(Summing):
    def __init__(self, key: RouterMoment, run: Run) -> None:
        super().__init__()
        self.clusters = dict(key.clusters)
        self.joint = key.joint
        self.module = run.module
        self.routers = {router.weight: router for router in key.routers}
        if self.routers:
            run.taps.subscribe(tuple(self.routers), self._see)

    def _see(self, seen: Entering) -> None:
        router = self.routers[seen.param]
        x_TI = seen.rows_NF.double()
        z_TE = router.logits(lambda name: tensor_at(self.module, name).detach(), x_TI)
        if router.axis in self.clusters:
            sets = [z_TE[:, list(members)] for members in self.clusters[router.axis]]
            logits = [one.amax(1) if self.joint == "max" else one.logsumexp(1) for one in sets]
            a_TI = torch.cat([x_TI, x_TI.new_ones(len(x_TI), 1)], 1)
            added = block_gram(a_TI, torch.cat([a_TI, torch.stack(logits, 1)], 1))
        else:
            added = block_gram(z_TE)
        self.merge({router.axis: added})
