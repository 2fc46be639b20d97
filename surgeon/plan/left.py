"""Limits once Blocks are gone: Axes that went with them follow those that share their config field.

A field holds one count for Axes of many Blocks. Those of dropped Blocks are nobody's concern any more, so
a step does not select them; asked about the others, the limits are told that they come along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from surgeon.graph import Graph, Group
from surgeon.plan.gone import gone_prefixes
from surgeon.plan.limits import Limits, Refusal
from surgeon.plan.plan import Plan

__all__ = ["LeftLimits", "gone_groups"]


def gone_groups(plan: Plan, graph: Graph) -> frozenset[str]:
    """Axes that lie in dropped Blocks and sublayers alone."""
    gone = gone_prefixes(plan, graph)
    return frozenset(group.name for group in graph.groups if gone and _inside(group, gone))


def _inside(group: Group, gone: tuple[str, ...]) -> bool:
    return bool(group.sites) and all(site.param.startswith(gone) for site in group.sites)


@dataclass(frozen=True)
class LeftLimits:
    """`inner`, asked about Axes that are left, where those called `gone` are not."""

    inner: Limits
    gone: tuple[str, ...]
    _sets: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = field(default_factory=dict, repr=False)

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """What the inner limits say."""
        return self.inner.tied(names)

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        """What the inner limits say if the Axes that are gone have the sizes of the others."""
        return self.inner.refuse(self._joined(sizes))

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """What the inner limits say if the Axes that are gone have the sizes of the others."""
        along = [name for held in self._with_gone(names) if set(held) & set(names) for name in held]
        every = tuple(dict.fromkeys((*names, *along)))
        others = {name: size for name, size in self._joined(sizes).items() if name not in every}
        return self.inner.nearest(every, count, others)

    def _joined(self, sizes: Mapping[str, int]) -> dict[str, int]:
        joined = dict(sizes)
        for held in self._with_gone(tuple(sizes)):
            known = [sizes[name] for name in held if name in sizes and name not in self.gone]
            if known:
                joined |= {name: known[0] for name in held if name in self.gone}
        return joined

    def _with_gone(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Tied sets of these names and of what is gone."""
        key = tuple(names)
        if key not in self._sets:
            self._sets[key] = self.inner.tied(tuple(dict.fromkeys((*key, *self.gone))))
        return self._sets[key]
