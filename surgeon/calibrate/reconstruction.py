"""Statistic ``reconstruction``: how far a routed block's output is off without some of its experts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.call_sums import CallSums
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.sublayer_calls import SublayerCall, SublayerCalls
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group
from surgeon.rebuild.absent import Absent

__all__ = ["Reconstruction"]

Gone = tuple[int, ...]
"""Experts that are left out."""


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
    inside: ClassVar[bool] = True
    in_order: ClassVar[bool] = True
    sets: int = 256
    tokens: int = 8192
    routers: tuple[tuple[Group, tuple[str, ...]], ...] = ()
    """Groups of experts, and the vectors and matrices of their routers."""

    @property
    def places(self) -> tuple[str, ...]:
        """The routers' tensors."""
        return tuple(name for _, names in self.routers for name in names)

    def at(self, block: str) -> Reconstruction:
        """The experts of one Block."""
        inside = f"{block}."
        return replace(self, routers=tuple(r for r in self.routers if f"{r[0].sublayer}.".startswith(inside)))

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
        tried = all(self.all_sets(group) for group, _ in self.routers)
        return _AllSets(self, run) if tried else _OneByOne(self, run)

    def all_sets(self, group: Group) -> bool:
        """Whether there are few enough sets to try them all."""
        return sum(comb(group.size, count) for count in range(1, _most(group) + 1)) <= self.sets

    def calls(self, run: Run) -> SublayerCalls:
        """Calls of the sublayers, by the name of their experts' Axis."""
        paths = {group.name: group.sublayer or "" for group, _ in self.routers}
        return SublayerCalls(run.module, paths, self.tokens)


class _AllSets(CallSums):
    """Every set on every call; the losses of sets add up over calls."""

    def __init__(self, key: Reconstruction, run: Run) -> None:
        super().__init__(key.calls(run))
        self.routers = {group.name: (group, names) for group, names in key.routers}
        self.sets = {group.name: tuple(_every(group)) for group, _ in key.routers}

    def add(self, name: str, call: SublayerCall) -> None:
        group, names = self.routers[name]
        _refuse_lost(group, names, call)
        losses = [_loss(group, names, gone, call) for gone in self.sets[name]]
        self.merge({name: torch.tensor(losses, dtype=torch.float64)})

    def result(self) -> Mapping[str, Tensor]:
        return {
            name: _table(group.size, zip(self.sets[name], self.sums[name].tolist(), strict=True))
            for name, (group, _) in self.routers.items()
        }


class _OneByOne(Collector):
    """Where some experts have too many sets: what goes next follows from the losses of all calls together."""

    def __init__(self, key: Reconstruction, run: Run) -> None:
        self.key = key
        self.calls = key.calls(run)

    def attach(self) -> tuple[RemovableHandle, ...]:
        return self.calls.attach()

    def observe(self, observation: Observation) -> None:
        self.calls.count(observation.batch)

    def result(self) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return {group.name: self._tried(group, names) for group, names in self.key.routers}

    def _tried(self, group: Group, names: Sequence[str]) -> Tensor:
        calls = self.calls.held[group.name]
        for call in calls[:1]:
            _refuse_lost(group, names, call)

        def loss(gone: Gone) -> float:
            return sum(_loss(group, names, gone, call) for call in calls)

        if self.key.all_sets(group):
            return _table(group.size, ((gone, loss(gone)) for gone in _every(group)))
        return _table(group.size, _one_by_one(group.size, _most(group), loss))


def _refuse_lost(group: Group, names: Sequence[str], call: SublayerCall) -> None:
    routers = [call.tensors[name.removeprefix(f"{group.sublayer}.")] for name in names]
    if any(t.ndim == 2 and not t.any(1).all() for t in routers if len(t) > 1):
        raise SurgeonError(
            f"'{group.name}' has lost experts already, and reconstruction compares with all of them",
            hint="remove them in one step, with shots: 1",
        )


def _loss(group: Group, names: Sequence[str], gone: Gone, call: SublayerCall) -> float:
    """How far the sublayer's output is off in one call when its router passes over those that are gone."""
    seeds = []
    for name in names:
        site = next(site for site in group.sites if site.param == name)
        tensor = call.tensors[name.removeprefix(f"{group.sublayer}.")]
        positions = torch.from_numpy(site.layout.positions(gone).reshape(-1)).to(tensor.device)
        mask = torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
        seeds.append((tensor, mask.index_fill(site.dim, positions, True)))
    with Absent(seeds):
        given = call.again()
    return float((given - call.output).double().norm())


def _table(size: int, tried: Iterable[tuple[Gone, float]]) -> Tensor:
    """A row for each set that was tried."""
    rows = [[*(float(index not in gone) for index in range(size)), value] for gone, value in tried]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, size + 1)


def _most(group: Group) -> int:
    """How many experts may go."""
    return max(group.size - max(group.picked, 1), 0)


def _every(group: Group) -> Iterator[Gone]:
    """Every set of at most as many as may go."""
    for count in range(1, _most(group) + 1):
        yield from combinations(range(group.size), count)


def _one_by_one(size: int, most: int, loss: Callable[[Gone], float]) -> Iterator[tuple[Gone, float]]:
    """What is tried when one goes after the other."""
    gone: Gone = ()
    while len(gone) < most:
        tried = {(*gone, index): loss((*gone, index)) for index in range(size) if index not in gone}
        yield from tried.items()
        gone = min(tried, key=tried.__getitem__)
