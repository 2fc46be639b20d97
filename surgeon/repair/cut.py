"""Cut: a projection that lost inputs in a step, which is where a repair can be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph, Group, Site
from surgeon.graph.layout import Positions
from surgeon.plan import Plan, cuts_of

__all__ = ["Cut", "bias_name", "cuts_made", "lacking_biases", "projections"]


@dataclass(frozen=True, eq=False)
class Cut:
    """`param` contracts its dim `dim`, of which the positions `kept` stay and `removed` go, both ascending.

    `slices`: of a stack of matrices (experts), how many; else None. `bias`: the vector that is added to
    what the projection gives, or None where the module has none.
    """

    param: str
    dim: int
    kept: Positions
    removed: Positions
    block: str | None
    slices: int | None = None
    bias: str | None = None


def cuts_made(before: Plan, after: Plan, graph: Graph) -> tuple[Cut, ...]:
    """The projections that `after` cuts further than `before`, front to back.

    Raises:
        InfeasibleError: an Axis was cut that norms average over: there is no one projection to repair.
    """
    return _front_to_back(_cut_groups(before, after, graph), before, after, graph)


def projections(groups: Sequence[Group], after: Plan, graph: Graph) -> tuple[Cut, ...]:
    """The projections that contract `groups`, whether or not `after` cuts them, front to back.

    Raises:
        InfeasibleError: norms average over one of the Axes.
    """
    return _front_to_back(groups, Plan(after.model_type), after, graph)


def _front_to_back(groups: Sequence[Group], before: Plan, after: Plan, graph: Graph) -> tuple[Cut, ...]:
    """What contracts `groups`, as it is between two Plans, in the order in which a model runs it."""
    old, new = cuts_of(before, graph), cuts_of(after, graph)
    found: dict[tuple[str, int], Cut] = {}
    for group in groups:
        if group.normalised:
            raise InfeasibleError(
                f"'{group.name}' runs through the whole model, and no one projection can take over its part",
                hint="repair: none for this kind, in a step of its own",
            )
        for site in group.sites:
            name = graph.parameters[site.param].tied_to or site.param
            if site.role == "consumer" and (name, site.dim) not in found:
                found[name, site.dim] = _cut(name, site, group, graph, old, new)
    order = {block.name: place for place, block in enumerate(graph.blocks)}
    parts = {part.name: place for b in graph.blocks for place, part in enumerate(b.sublayers)}
    sublayers = {(n, s.dim): g.sublayer for n in graph.parameters for g, s in graph.sites[n] if g.sublayer}

    def place(cut: Cut) -> tuple[int, int]:
        sublayer = sublayers.get((cut.param, cut.dim))
        return order.get(cut.block or "", len(order)), parts.get(sublayer or "", len(parts))

    return tuple(sorted(found.values(), key=place))


def _cut_groups(before: Plan, after: Plan, graph: Graph) -> tuple[Group, ...]:
    old, new = before.kept(), after.kept()
    return tuple(graph.group(axis) for axis, kept in new.items() if old.get(axis) != kept)


def _cut(name: str, site: Site, group: Group, graph: Graph, old: dict, new: dict) -> Cut:
    shape = graph.parameters[name].shape
    every = np.arange(shape[site.dim])
    had = old.get(name, {}).get(site.dim, every)
    kept = new.get(name, {}).get(site.dim, every)
    slices = shape[0] if len(shape) == 3 and site.dim != 0 else None
    outputs = [size for dim, size in enumerate(shape) if dim != site.dim]
    return Cut(
        name, site.dim, kept, np.setdiff1d(had, kept), group.block, slices, _bias(name, outputs, graph)
    )


def _bias(name: str, outputs: list[int], graph: Graph) -> str | None:
    """The bias beside the parameter, where there is one with a number for each output."""
    found = graph.parameters.get(bias_name(name))
    return found.name if found is not None and list(found.shape) == outputs else None


def lacking_biases(plan: Plan, graph: Graph) -> tuple[str, ...]:
    """Biases that `plan` assigns and the model, as it was traced, does not have."""
    beside = {bias_name(name) for name in graph.parameters}
    return tuple(name for name in plan.assigned if name in beside and name not in graph.parameters)


def bias_name(param: str) -> str:
    """Name of the bias beside `param` by torch's convention: ``weight``/``bias``, and ``w``/``w_bias``."""
    owner, dot, leaf = param.rpartition(".")
    return f"{owner}{dot}{'bias' if leaf == 'weight' else f'{leaf}_bias'}"
