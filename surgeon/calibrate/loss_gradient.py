"""LossGradient: what the Statistics of gradients have in common, which is the parameters they are about."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from surgeon.calibrate.statistic import Observation, Statistic
from surgeon.graph import Graph, Group

__all__ = ["LossGradient", "asked_for"]


@dataclass(frozen=True)
class LossGradient(Statistic):
    """Something summed over gradients of the loss, by name of parameter."""

    gradients: ClassVar[bool] = True
    params: tuple[str, ...] | None = None
    """Parameters whose gradients are taken; None for all."""

    def on(self, graph: Graph, groups: Collection[Group]) -> Self:
        """Only the parameters that hold an Axis of `groups`, tied ones by their first name."""
        found = [graph.parameters[site.param] for group in groups for site in group.sites]
        names = dict.fromkeys(one.tied_to or one.name for one in found if not one.buffer)
        return replace(self, params=tuple(names))

    def wider(self) -> Self:
        """That of all parameters."""
        return replace(self, params=None)

    def among(self, observation: Observation) -> Iterator[tuple[str, Tensor]]:
        """The gradients of one batch that this is about."""
        for name, gradient in observation.gradients.items():
            if self.params is None or name in self.params:
                yield name, gradient


def asked_for(keys: Collection[Statistic]) -> frozenset[str] | None:
    """Parameters whose gradients `keys` ask for; None for all."""
    params = [getattr(key, "params", None) for key in keys if key.gradients]
    named = [names for names in params if names is not None]
    if len(named) < len(params):
        return None
    return frozenset(name for names in named for name in names)
