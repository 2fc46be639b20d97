"""The pass `regroup`: ties Groups of several layers into one, cut by the same indices everywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import Annotated, Literal

from pydantic import Field

from surgeon.errors import PassError
from surgeon.graph import Axis, Graph, Group, Selector
from surgeon.passes.contract import GraphPass, passes

__all__ = ["Regroup"]


@passes.register("regroup")
class Regroup(GraphPass):
    """One Group with all Sites of the selected ones, which must be of one kind and size.

    YAML::

        - {op: regroup, select: {kind: ffn}}
    """

    op: Literal["regroup"] = "regroup"
    select: Selector
    name: Annotated[str, Field(min_length=1)] | None = None
    """Name of the new Axis; absent: the members' name with ``*`` where they differ."""

    def requires(self, graph: Graph) -> None:
        """Two Groups or more, all of one kind and one size."""
        groups = self.select.on(graph)
        if len(groups) == 1:
            raise PassError(f"selects '{groups[0].name}' alone", hint="select two groups or more")
        shapes = {str(group.axis): group.name for group in groups}
        if len(shapes) > 1:
            unlike = ", ".join(f"'{name}' is {shape}" for shape, name in shapes.items())
            raise PassError(f"groups of several kinds or sizes cannot be tied: {unlike}")

    def rewrite(self, graph: Graph) -> Graph:
        """The same Graph with one Group in the place of the selected ones."""
        chosen = self.select.on(graph)
        names = {group.name for group in chosen}
        whole = self._tie(chosen)
        rest = (whole if g is chosen[0] else g for g in graph.groups if g is chosen[0] or g.name not in names)
        return replace(graph, groups=tuple(rest))

    def _tie(self, chosen: tuple[Group, ...]) -> Group:
        blocks, sublayers = {group.block for group in chosen}, {group.sublayer for group in chosen}
        return Group(
            Axis(self.name or _common([g.name for g in chosen]), chosen[0].kind, chosen[0].size),
            tuple(site for group in chosen for site in group.sites),
            block=blocks.pop() if len(blocks) == 1 else None,
            sublayer=sublayers.pop() if len(sublayers) == 1 else None,
            locks=frozenset(reason for group in chosen for reason in group.locks),
            normalised=any(group.normalised for group in chosen),
            ports=tuple(port for group in chosen for port in group.ports),
            members=tuple(member for group in chosen for member in group.members or (group,)),
        )


def _common(names: list[str]) -> str:
    """The names' parts where they agree, ``*`` where they differ: ``layers.*.mlp.ffn``."""
    columns = zip_longest(*(name.split(".") for name in names))
    return ".".join(parts[0] if len(set(parts)) == 1 else "*" for parts in columns)
