"""ConfigLimits: which kept counts one model's config can express, measured before anything is allocated.

The answers come from `config_solve` on the shallow model: a count works where a config is found that
builds its shapes. Not here: layouts that are not limited (`surgeon.plan.limits.Unlimited`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.plan import Keep, Plan
from surgeon.plan.limits import Refusal
from surgeon.rebuild.config_depth import Shallow
from surgeon.rebuild.config_probe import ConfigSpace
from surgeon.rebuild.config_solve import Inexpressible, find_changes
from surgeon.rebuild.config_target import aim
from surgeon.rebuild.config_tree import Path

__all__ = ["ConfigLimits"]

SEARCHED = 64
"""How many counts on either side are tried for the nearest that works."""


class ConfigLimits:
    """The limits of the config that `space` was measured on; implements `surgeon.plan.limits.Limits`."""

    def __init__(self, space: ConfigSpace, graph: Graph) -> None:
        self._space = space
        self._graph = graph
        self._alike = _alike(space.shallow, graph)
        self._shown = _shown(space.shallow, graph, [names[0] for names in self._alike])
        self._moved: dict[str, frozenset[Path]] = {}
        self._errors: dict[frozenset[tuple[str, int]], InfeasibleError | None] = {}

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Axes of one kind and size whose sizes are moved by the same fields share one count.

        So do those that share some of these fields, where neither can be cut alone but all can together:
        heads of two sizes, of which one field counts all.
        """
        sets: dict[tuple, list[str]] = {}
        for name in names:
            group = self._graph.group(name)
            sets.setdefault((group.kind, group.size, self._movers(name)), []).append(name)
        alike: dict[tuple, list[list[str]]] = {}
        for (kind, size, _), found in sets.items():
            alike.setdefault((kind, size), []).append(found)
        return tuple(tuple(one) for found in alike.values() for one in self._joined(found))

    def _joined(self, sets: list[list[str]]) -> list[list[str]]:
        """`sets` of one kind and size, or all as one."""
        shared = frozenset.intersection(*(self._movers(names[0]) for names in sets))
        every = [name for names in sets for name in names]
        if len(sets) < 2 or not shared or not self._complete(every):
            return sets
        size = self._graph.group(every[0]).size
        alone = all(self._hopeless(names, size, {}) for names in sets)
        return [every] if alone and not self._hopeless(every, size, {}) else sets

    def builds(self, sizes: Mapping[str, int]) -> bool:
        """Whether a config builds these sizes; nothing is sought in the place of what does not."""
        return self._error(sizes) is None

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        """None where a config builds these sizes, else the reason and the nearest counts.

        The nearest counts are those of the first tied set of cut Axes for which any other count works,
        the other Axes as given; Axes tied to a named one that are not named themselves keep their size.
        """
        error = self._error(sizes)
        return None if error is None else Refusal(error.message, lambda: self._near(sizes))

    def _near(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        cut = [name for name, count in sizes.items() if count != self._graph.group(name).size]
        for names in self.tied(cut):
            others = {name: count for name, count in sizes.items() if name not in names}
            near = tuple(c for c in self.nearest(names, sizes[names[0]], others) if c != sizes[names[0]])
            if near:
                return near
        return ()

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Nearest counts for `names` at or below and at or above `count`, given the other `sizes`."""
        size = self._graph.group(names[0]).size

        def works(kept: int) -> bool:
            return self._error({**sizes, **dict.fromkeys(names, kept)}) is None

        if not self._complete(names) or self._hopeless(names, size, sizes):
            return (size,) if works(size) else ()
        below = next(filter(works, _outward(count, 0, size)), None)
        above = next(filter(works, _outward(count, size + 1, size)), None)
        return tuple(dict.fromkeys(kept for kept in (below, above) if kept is not None))

    def _movers(self, name: str) -> frozenset[Path]:
        """Fields that move a dim in which the Axis lies."""
        if name not in self._moved:
            sites = self._graph.group(name).sites
            dims = {(self._space.shallow.shown(site.param), site.dim) for site in sites}
            self._moved[name] = frozenset(f.path for f in self._space.movers(dims))
        return self._moved[name]

    def _complete(self, names: Sequence[str]) -> bool:
        """Whether `names` has all Axes that must have one size with any of them, so that it can change."""
        wanted = set(names)
        return all(wanted.isdisjoint(alike) or wanted.issuperset(alike) for alike in self._alike)

    def _hopeless(self, names: Sequence[str], size: int, sizes: Mapping[str, int]) -> bool:
        """Whether even round shares of the size are refused, and not by validators: then any count is.

        Only told where no Axis is cut that the same fields move: it may need one certain count of this one.
        """
        cut = (name for name, count in sizes.items() if count != self._graph.group(name).size)
        own = frozenset().union(*map(self._movers, names))
        if any(self._movers(name) & own for name in cut):
            return False
        part = next((size // factor for factor in range(2, size + 1) if size % factor == 0), 0)
        errors = [self._error(dict.fromkeys(names, kept)) for kept in {part, size - part} - {0, size}]
        return bool(errors) and all(isinstance(e, Inexpressible) and not e.refused for e in errors)

    def _error(self, sizes: Mapping[str, int]) -> InfeasibleError | None:
        """Why no config builds these sizes, or None where one does."""
        key = frozenset((n, count) for n, count in sizes.items() if count != self._graph.group(n).size)
        if key not in self._errors:
            self._errors[key] = self._solve(dict(key))
        return self._errors[key]

    def _solve(self, sizes: Mapping[str, int]) -> InfeasibleError | None:
        """Search on the shallow model; Axes that it shows once must have one size."""
        counts = [{sizes.get(name, self._graph.group(name).size) for name in names} for names in self._alike]
        one = all(len(found) == 1 for found in counts)
        firsts = {names[0] for names in self._alike}
        graph = self._shown if one else self._graph
        keeps = [Keep(n, tuple(range(c)), 0) for n, c in sizes.items() if not one or n in firsts]
        try:
            find_changes(self._space, aim(Plan(graph.model_type, tuple(keeps)), graph, self._space.shallow))
        except InfeasibleError as error:
            return error
        return None


def _alike(shallow: Shallow, graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Axes that are one Axis in the shallow model, the one that lies there first."""
    sets: dict[tuple, list[str]] = {}
    for group in graph.groups:
        shown = frozenset((shallow.shown(site.param), site.dim, site.layout) for site in group.sites)
        own = all(shallow.shown(site.param) == site.param for site in group.sites)
        names = sets.setdefault((group.kind, group.size, shown), [])
        names.insert(0 if own else len(names), group.name)
    return tuple(tuple(names) for names in sets.values())


def _shown(shallow: Shallow, graph: Graph, names: Sequence[str]) -> Graph:
    """The part of the Graph that the shallow model shows, with only the Axes called `names`."""
    parameters = {n: p for n, p in graph.parameters.items() if shallow.shown(n) == n}
    groups = (graph.group(name) for name in names)
    cut = tuple(replace(g, sites=tuple(s for s in g.sites if s.param in parameters)) for g in groups)
    return replace(graph, groups=cut, parameters=parameters)


def _outward(count: int, end: int, size: int) -> Iterator[int]:
    """Counts from `count` toward `end` (left out): the first ones, then round ones of the Axis' size."""
    step = 1 if end > count else -1
    near = range(count, end, step)[:SEARCHED]
    yield from near
    parts = [c for c in range(1, size + 1) if size % c == 0 or (c * SEARCHED) % size == 0]
    yield from sorted((c for c in parts if (c - count) * step >= SEARCHED), reverse=step < 0)
