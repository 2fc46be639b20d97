"""Graph: Groups, Stacks, and where each coupling came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from surgeon.errors import SurgeonError
from surgeon.graph.axis import AxisKind
from surgeon.graph.group import Group, Site
from surgeon.graph.stack import Block, Stack
from surgeon.registry import nearest

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["Graph", "Parameter"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """Shape and standing of one named tensor of the traced module."""

    name: str
    shape: tuple[int, ...]
    buffer: bool = False
    stored: bool = True
    touched: bool = True
    tied_to: str | None = None
    """The first name of the same storage, where this is not the first."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Graph:
    """The traced structure of a model. Immutable: every change returns a new Graph.

    `couplings` is a ``networkx.MultiDiGraph`` whose nodes are parameter dims ``(param, dim)`` and
    anonymous axes (ints); edges carry ``op`` and ``module``: the evidence for each coupling. Read it
    through `surgeon.graph.why`. None where no evidence was kept.
    """

    model_type: str
    groups: tuple[Group, ...]
    stacks: tuple[Stack, ...]
    parameters: Mapping[str, Parameter]
    couplings: nx.MultiDiGraph | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = ()

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        members = {member.name: member for group in self.groups for member in group.members}
        return {**members, **{group.name: group for group in self.groups}}

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All Blocks of all Stacks, in order."""
        return tuple(block for stack in self.stacks for block in stack.blocks)

    @cached_property
    def sites(self) -> Mapping[str, tuple[tuple[Group, Site], ...]]:
        """For every parameter the Groups that appear in it, with the Site."""
        found: dict[str, list[tuple[Group, Site]]] = {name: [] for name in self.parameters}
        for group in self.groups:
            for site in group.sites:
                found[site.param].append((group, site))
        return {name: tuple(pairs) for name, pairs in found.items()}

    def group(self, name: str) -> Group:
        """The Group of the Axis called `name`; members of a regrouped one are found too."""
        if name not in self._by_name:
            raise SurgeonError(f"the graph has no axis '{name}'", hint=nearest(name, list(self._by_name)))
        return self._by_name[name]

    def of_kind(self, *kinds: AxisKind) -> tuple[Group, ...]:
        """All Groups of the given kinds, in order."""
        return tuple(group for group in self.groups if group.kind in kinds)

    def block(self, name: str) -> Block:
        """The Block with that module path."""
        for block in self.blocks:
            if block.name == name:
                return block
        raise SurgeonError(
            f"the graph has no block '{name}'", hint=nearest(name, [block.name for block in self.blocks])
        )

    def map_groups(self, change: Callable[[Group], Group]) -> Graph:
        """A new Graph in which every Group went through `change`."""
        return replace(self, groups=tuple(change(group) for group in self.groups))

    @property
    def parameter_count(self) -> int:
        """Number of parameters, tied ones counted once, buffers not."""
        return sum(p.numel for p in self.parameters.values() if not p.buffer and p.tied_to is None)
