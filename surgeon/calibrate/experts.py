"""Which stacks of matrices belong to routed experts, from the Graph: where they are entered and left."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group

__all__ = ["Experts", "experts_of"]


@dataclass(frozen=True)
class Experts:
    """The experts of one sublayer: `axis` is theirs, `outlet` the stack that gives their outputs.

    `inlets`: the other stacks that contract something. `inner`: names of the Axes between the two.
    `sublayer`: path of the module that routes to them.
    """

    axis: str
    outlet: str
    inlets: tuple[str, ...]
    inner: tuple[str, ...]
    sublayer: str | None = None


def experts_of(graph: Graph, groups: Collection[Group]) -> tuple[Experts, ...]:
    """The experts that `groups` count, or whose inner channels they are.

    Raises:
        SurgeonError: experts do not lie in stacks of matrices.
    """
    names = {group.name for group in groups}
    every = (_experts(graph, group) for group in graph.groups if group.kind == "expert")
    return tuple(one for one in every if names & {one.axis, *one.inner})


def _experts(graph: Graph, group: Group) -> Experts:
    stacks = [name for name in group.params if len(graph.parameters[name].shape) == 3]
    outlets: dict[str, list[str]] = {}
    for other in graph.groups:
        for site in other.sites if other.kind == "ffn" else ():
            if site.role == "consumer" and site.param in stacks:
                outlets.setdefault(site.param, []).append(other.name)
    if len(outlets) != 1:
        raise SurgeonError(
            f"the experts of '{group.name}' have no one stack of matrices that gives their outputs",
            hint="a criterion that reads weights only, such as magnitude",
        )
    outlet, inner = next(iter(outlets.items()))
    return Experts(
        group.name, outlet, tuple(name for name in stacks if name != outlet), tuple(inner), group.sublayer
    )
