"""ExpertStatistic: a Statistic of routed experts that lie in stacks of matrices, each Block's by itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar, Self

from surgeon.calibrate.experts import Experts, experts_of
from surgeon.calibrate.statistic import Statistic
from surgeon.graph import Graph, Group

__all__ = ["ExpertStatistic"]


class ExpertStatistic(Statistic):
    """A key with `experts` as a field; it is narrowed and shared out by them."""

    inside: ClassVar[bool] = True
    experts: tuple[Experts, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """The stacks of last matrices."""
        return tuple(one.outlet for one in self.experts)

    def at(self, block: str) -> Self:
        """The experts of one Block."""
        return replace(self, experts=tuple(e for e in self.experts if e.outlet.startswith(f"{block}.")))

    def on(self, graph: Graph, groups: Collection[Group]) -> Self:
        """The experts that `groups` count."""
        return replace(self, experts=experts_of(graph, groups))
