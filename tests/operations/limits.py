"""Limits made up for tests: what is tied, and which counts each kind may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from surgeon.graph import Graph
from surgeon.plan import Refusal


@dataclass(frozen=True)
class TiedByKind:
    """All Axes of a kind share one count, which `allows` accepts."""

    graph: Graph
    allows: Callable[[str, int], bool] = lambda kind, count: True

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        sets: dict[str, list[str]] = {}
        for name in names:
            sets.setdefault(self.graph.group(name).kind, []).append(name)
        return tuple(tuple(found) for found in sets.values())

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        for group in self.graph.groups:
            count = sizes.get(group.name, group.size)
            alike = {sizes.get(g.name, g.size) for g in self.graph.of_kind(group.kind)}
            if group.kind in ("ffn", "kv_group") and len(alike) > 1:
                return Refusal(f"{group.kind} differs: {sorted(alike)}")
            if count != group.size and not self.allows(group.kind, count):
                return Refusal(
                    f"{group.kind} cannot be {count}", partial(self.nearest, (group.name,), count, {})
                )
        return None

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        group = self.graph.group(names[0])
        works = [c for c in range(1, group.size + 1) if c == group.size or self.allows(group.kind, c)]
        near = [max((c for c in works if c <= count), default=None), min(c for c in works if c >= count)]
        return tuple(dict.fromkeys(c for c in near if c is not None))
