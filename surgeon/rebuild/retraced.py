"""The rebuilt model, traced again, has the Axes that the Plan left: the second look at what a config means.

A config may build the planned shapes and mean another split of them (twice the heads, half as wide). The
comparison with the masked original notices that by numbers; here it is noticed by structure, which needs
no weights. Not here: tracing (`surgeon.trace`).
"""

from __future__ import annotations

from collections.abc import Mapping

from surgeon.graph import Graph
from surgeon.plan import Plan
from surgeon.rebuild.config_probe import Dim
from surgeon.rebuild.rebuild import renamed

__all__ = ["retraced_faults"]

SHOWN = 3


def retraced_faults(plan: Plan, graph: Graph, small: Graph) -> tuple[str, ...]:
    """Where the Axes of `small` are not those that `plan` leaves of `graph`, in words; empty is good.

    Compared are, for every dim of every stored tensor, the sizes of the Axes in it; an Axis of size 1 is no
    Axis.
    """
    names = renamed(tuple(graph.parameters), plan, graph)
    kept = plan.kept()
    planned: dict[Dim, list[int]] = {}
    for group in graph.groups:
        size = len(kept.get(group.name, range(group.size)))
        for site in group.sites:
            if site.stored and site.param in names:
                planned.setdefault((names[site.param], site.dim), []).append(size)
    built = _sizes(small)
    faults = [
        f"{name} dim {dim} holds axes of {_some(built.get((name, dim), []))}, planned {_some(sizes)}"
        for (name, dim), sizes in planned.items()
        if _real(built.get((name, dim), [])) != _real(sizes)
    ]
    more = (f"and {len(faults) - SHOWN} more",) if len(faults) > SHOWN else ()
    return (*faults[:SHOWN], *more)


def _sizes(graph: Graph) -> Mapping[Dim, list[int]]:
    found: dict[Dim, list[int]] = {}
    for group in graph.groups:
        for site in group.sites:
            found.setdefault((site.param, site.dim), []).append(group.size)
    return found


def _real(sizes: list[int]) -> list[int]:
    return sorted(size for size in sizes if size > 1)


def _some(sizes: list[int]) -> str:
    return " and ".join(map(str, sorted(sizes))) or "none"
