"""What a Plan costs and saves: parameters, sizes of Axes, elements of the KV-cache.

Counted from the Graph's shapes and the Plan's cuts; no tensor is looked at. Not here: time, which is
measured (`surgeon.evaluate`).
"""

from __future__ import annotations

from math import prod

import numpy as np

from surgeon.graph import Graph, Group, Parameter, Role, Site
from surgeon.plan.cuts import Cuts, cuts_of
from surgeon.plan.gone import gone_prefixes
from surgeon.plan.members import kept_of
from surgeon.plan.plan import Plan

__all__ = ["kv_cache_elements", "parameters_after", "shapes_after", "sizes", "unit_cost"]


def unit_cost(group: Group, graph: Graph) -> int:
    """Parameters that the model loses with one index of the Group, tied ones counted once."""
    owned: dict[tuple[str, int], set[int]] = {}
    for site in group.sites:
        parameter = graph.parameters[site.param]
        if not parameter.buffer:
            key = (parameter.tied_to or parameter.name, site.dim)
            owned.setdefault(key, set()).update(site.layout.positions([0]).reshape(-1).tolist())
    cost = 0
    for name in {name for name, _ in owned}:
        shape = graph.parameters[name].shape
        left = prod(size - len(owned.get((name, dim), ())) for dim, size in enumerate(shape))
        cost += prod(shape) - left
    return cost


def sizes(plan: Plan, graph: Graph) -> dict[str, int]:
    """Kept size of every Axis of the Graph."""
    return {group.name: len(kept_of(plan, group)) for group in graph.groups}


def shapes_after(plan: Plan, graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter and buffer that is left; those under dropped Blocks are gone."""
    cuts = cuts_of(plan, graph)
    gone = gone_prefixes(plan, graph)
    return {
        name: _cut_shape(parameter, cuts)
        for name, parameter in graph.parameters.items()
        if not name.startswith(gone)
    }


def parameters_after(plan: Plan, graph: Graph) -> int:
    """Number of parameters that are left, tied ones counted once, buffers not."""
    storages: dict[str, int] = {}
    for name, shape in shapes_after(plan, graph).items():
        parameter = graph.parameters[name]
        if not parameter.buffer:
            storages[parameter.tied_to or name] = prod(shape)
    return sum(storages.values())


def kv_cache_elements(plan: Plan, graph: Graph) -> int | None:
    """Elements that one token adds to the KV-cache, or None where the Graph does not tell.

    Of a kv group with r query heads, the output projection contracts r·v positions and the producers
    hold r·k + k + v, with k and v the sizes of a key and a value head; so both follow from counts.
    Where they come out unequal or broken (latent caches, gated queries), the answer is None. This is what
    grouped attention needs; a family that repeats the heads before it caches them takes more.
    """
    whole = Plan(plan.model_type)
    before, after = (cuts_of(whole, graph), sizes(whole, graph)), (cuts_of(plan, graph), sizes(plan, graph))
    gone = gone_prefixes(plan, graph)
    groups = [group for group in graph.of_kind("kv_group") if not group.sites[0].param.startswith(gone)]
    total = 0
    for group in groups:
        original = _key_and_value(group, graph, *before)
        left = _key_and_value(group, graph, *after)
        if original is None or left is None or original[0] != original[1]:
            return None
        total += sum(left)
    return total if groups else None


def _key_and_value(group: Group, graph: Graph, cuts: Cuts, kept: dict[str, int]) -> tuple[int, int] | None:
    """Elements of keys and of values that one token adds for the whole Group."""
    heads = _heads_per_group(group, graph, kept)
    values, odd_values = divmod(_positions(group, "consumer", cuts), heads)
    keys, odd_keys = divmod(_positions(group, "producer", cuts) - values, heads + 1)
    return None if odd_values or odd_keys else (keys, values)


def _cut_shape(parameter: Parameter, cuts: Cuts) -> tuple[int, ...]:
    dims = cuts.get(parameter.name, {})
    return tuple(len(dims[dim]) if dim in dims else size for dim, size in enumerate(parameter.shape))


def _heads_per_group(group: Group, graph: Graph, kept: dict[str, int]) -> int:
    """Kept query heads of one kv group: of the Axis that shares a contracted dim with it."""
    for site in group.sites:
        if site.role == "consumer":
            for other, _ in graph.sites[site.param]:
                if other.kind == "q_per_kv":
                    return kept[other.name]
    return 1


def _positions(group: Group, role: Role, cuts: Cuts) -> int:
    """Positions that the Group still owns at its Sites of that role."""
    return sum(_left(site, cuts) for site in group.sites if site.role == role)


def _left(site: Site, cuts: Cuts) -> int:
    owned = site.layout.positions().reshape(-1)
    left = cuts.get(site.param, {}).get(site.dim)
    return len(owned) if left is None else int(np.isin(owned, left).sum())
