"""Regrouped Axes: what a Group that a pass tied together means for the Groups that were traced.

A Plan names traced Axes only, so that it can be replayed on a fresh trace. An Edit of a regrouped
Axis therefore becomes one Edit for every member, and the config is asked about the members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from surgeon.graph import Graph, Group
from surgeon.plan.edits import Edit, Keep
from surgeon.plan.limits import Limits, Refusal
from surgeon.plan.plan import Plan

__all__ = ["GroupedLimits", "kept_of", "traced_edits"]


def traced_edits(edits: Iterable[Edit], graph: Graph) -> tuple[Edit, ...]:
    """The same Edits, in which a Keep of a regrouped Axis is one Keep for every member."""
    traced: list[Edit] = []
    for edit in edits:
        members = graph.group(edit.axis).members if isinstance(edit, Keep) else ()
        if isinstance(edit, Keep) and members:
            traced += [Keep(member.name, edit.indices, edit.step) for member in members]
        else:
            traced.append(edit)
    return tuple(traced)


def kept_of(plan: Plan, group: Group) -> tuple[int, ...]:
    """Indices of the Group that `plan` has left so far; of a regrouped one, in all members."""
    kept = plan.kept()
    left = set(range(group.size))
    for name in (group.name, *(member.name for member in group.members)):
        left &= set(kept.get(name, left))
    return tuple(sorted(left))


@dataclass(frozen=True, slots=True)
class GroupedLimits:
    """Limits of traced Axes, asked about the Axes of a Graph that passes have regrouped."""

    inner: Limits
    graph: Graph

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Sets of `names` that are tied through any of their members."""
        owner = {member: name for name in names for member in self._members(name)}
        sets: list[set[str]] = [{name} for name in names]
        for held in self.inner.tied(tuple(owner)):
            together = {owner[member] for member in held}
            apart = [one for one in sets if not one & together]
            sets = [*apart, together.union(*(one for one in sets if one & together))]
        order = {name: place for place, name in enumerate(names)}
        ordered = (tuple(sorted(one, key=order.__getitem__)) for one in sets)
        return tuple(sorted(ordered, key=lambda one: order[one[0]]))

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        """What the inner limits say about the members."""
        return self.inner.refuse(self._spread(sizes))

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """What the inner limits say about the members."""
        members = tuple(member for name in names for member in self._members(name))
        return self.inner.nearest(members, count, self._spread(sizes))

    def _members(self, name: str) -> tuple[str, ...]:
        return tuple(member.name for member in self.graph.group(name).members) or (name,)

    def _spread(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {member: size for name, size in sizes.items() for member in self._members(name)}
