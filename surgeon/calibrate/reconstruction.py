"""Statistic ``reconstruction``: how far a routed block's output is off without some of its experts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.sublayer_calls import SublayerCall, SublayerCalls
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group
from surgeon.rebuild.absent import Absent

__all__ = ["Reconstruction"]


@statistics.register("reconstruction")
@dataclass(frozen=True)
class Reconstruction(Statistic):
    """Loss of sets of experts, by the name of their Axis; [sets tried, experts + 1] float64.

    A row is 1 for each index that stays, 0 for each that goes, and the loss: summed over batches, the
    Frobenius norm of what the block gives with all of them minus what it gives when its router passes
    over those that go (Lu et al. 2024, arXiv 2402.14800). All sets are tried where there are at most
    `sets` of them; else they go one by one, at each step the one whose loss is least. Experts are run on
    tokens that they were not given. At most about `tokens` tokens are read.
    """

    statistic: ClassVar[str] = "reconstruction"
    sets: int = 256
    tokens: int = 8192
    routers: tuple[tuple[Group, tuple[str, ...]], ...] = ()
    """Groups of experts, and the vectors and matrices of their routers."""

    def on(self, graph: Graph, groups: Collection[Group]) -> Reconstruction:
        """The experts that `groups` count."""
        found = []
        for group in groups:
            if group.kind == "expert":
                names = (site.param for site in group.sites)
                flat = dict.fromkeys(n for n in names if len(graph.parameters[n].shape) < 3)
                found.append((group, tuple(flat)))
        return replace(self, routers=tuple(found))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector.

        Raises:
            SurgeonError: a router does not lie in the sublayer of its experts.
        """
        for group, names in self.routers:
            outside = [name for name in names if not name.startswith(f"{group.sublayer}.")]
            if outside:
                raise SurgeonError(
                    f"the router of '{group.name}' lies in {outside[0]}, outside of {group.sublayer}",
                    hint="criterion: reap_sum",
                )
        return _Losses(self, run)


class _Losses(Collector):
    def __init__(self, key: Reconstruction, run: Run) -> None:
        self.key = key
        paths = {group.name: group.sublayer or "" for group, _ in key.routers}
        self.calls = SublayerCalls(run.module, paths, key.tokens)

    def attach(self) -> tuple[RemovableHandle, ...]:
        return self.calls.attach()

    def observe(self, observation: Observation) -> None:
        self.calls.count(observation.batch)

    def result(self) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return {group.name: self._tried(group, names) for group, names in self.key.routers}

    def _tried(self, group: Group, names: Sequence[str]) -> Tensor:
        for seen in self.calls.held[group.name][:1]:
            routers = [seen.tensors[name.removeprefix(f"{group.sublayer}.")] for name in names]
            if any(t.ndim == 2 and not t.any(1).all() for t in routers if len(t) > 1):
                raise SurgeonError(
                    f"'{group.name}' has lost experts already, and reconstruction compares with all of them",
                    hint="remove them in one step, with shots: 1",
                )

        def loss(gone: tuple[int, ...]) -> float:
            return sum(self._loss(group, names, gone, seen) for seen in self.calls.held[group.name])

        most = max(group.size - max(group.picked, 1), 0)
        every = sum(comb(group.size, count) for count in range(1, most + 1))
        search = _all_sets if every <= self.key.sets else _one_by_one
        rows = [
            [*(float(index not in gone) for index in range(group.size)), value]
            for gone, value in search(group.size, most, loss)
        ]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, group.size + 1)

    def _loss(self, group: Group, names: Sequence[str], gone: tuple[int, ...], seen: SublayerCall) -> float:
        own = {name.removeprefix(f"{group.sublayer}."): name for name in names}
        seeds = []
        for local, name in own.items():
            site = next(site for site in group.sites if site.param == name)
            tensor = seen.tensors[local]
            positions = torch.from_numpy(site.layout.positions(gone).reshape(-1)).to(tensor.device)
            mask = torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
            seeds.append((tensor, mask.index_fill(site.dim, positions, True)))
        with Absent(seeds):
            given = seen.again()
        return float((given - seen.output).double().norm())


def _all_sets(
    size: int, most: int, loss: Callable[[tuple[int, ...]], float]
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every set of at most `most` that go."""
    for count in range(1, most + 1):
        for gone in combinations(range(size), count):
            yield gone, loss(gone)


def _one_by_one(
    size: int, most: int, loss: Callable[[tuple[int, ...]], float]
) -> Iterator[tuple[tuple[int, ...], float]]:
    """What is tried when one goes after the other."""
    gone: tuple[int, ...] = ()
    while len(gone) < most:
        tried = {(*gone, index): loss((*gone, index)) for index in range(size) if index not in gone}
        yield from tried.items()
        gone = min(tried, key=tried.__getitem__)
