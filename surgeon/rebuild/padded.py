"""The layout ``padded``: every block as wide as the widest of its sort, the rest of it zero.

Axes that one config field holds get one count; those that keep fewer indices get removed ones back, whose
tensors are zero, as in the masked view; a dropped sublayer stays, and what it adds is zero. So the model is
exact wherever the mask is. Not here: layouts without zeros (`per_layer`), and the check that nothing else
differs (`surgeon.rebuild.verify`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.plan import DropBlock, Keep, Plan, cuts_of, dropped_parts, gone_prefixes, silent_params
from surgeon.rebuild.config_limits import ConfigLimits
from surgeon.rebuild.config_probe import ConfigSpace
from surgeon.rebuild.tensors import TensorSource
from surgeon.rebuild.unread import described_like

__all__ = ["ZeroedSource", "widened_plan"]


def widened_plan(space: ConfigSpace, graph: Graph, plan: Plan) -> Plan:
    """The Plan whose counts one config can hold: each Axis keeps at least what `plan` keeps.

    Assigned values are left out: they come with the zeroed tensors (`ZeroedSource`).

    Raises:
        InfeasibleError: zeros are not exact in an Axis, or no config holds counts that are large enough.
    """
    kept = plan.kept()
    limits = ConfigLimits(space, graph)
    gone = gone_prefixes(plan, graph)
    kinds = {graph.group(axis).kind for axis in kept}
    names = [
        g.name
        for g in graph.groups
        if g.kind in kinds and not (gone and all(site.param.startswith(gone) for site in g.sites))
    ]
    sets = limits.tied(names)
    least = {
        name: max(len(kept.get(one, range(graph.group(one).size))) for one in held)
        for held in sets
        for name in held
    }
    counts = _expressible(limits, sets, least, graph)
    wide = {
        axis: _filled(kept[axis], counts[axis], graph.group(axis).size) for axis in kept if axis in counts
    }
    _check_zeros(wide, kept, graph)
    last = max((edit.step for edit in plan.edits), default=0)
    parts = dropped_parts(plan, graph)
    others = tuple(
        e
        for e in plan.edits
        if not isinstance(e, Keep) and not (isinstance(e, DropBlock) and e.block in parts)
    )
    keeps = tuple(Keep(axis, indices, last) for axis, indices in wide.items())
    return replace(plan, edits=(*others, *keeps), values={})


def _expressible(
    limits: ConfigLimits, sets: Sequence[Sequence[str]], least: Mapping[str, int], graph: Graph
) -> dict[str, int]:
    """Counts not below `least` that the config can hold together."""
    counts = dict(least)
    for held in sets:
        others = {name: count for name, count in counts.items() if name not in held}
        if limits.refuse(counts) is None:
            return counts
        asked, size = counts[held[0]], graph.group(held[0]).size
        above = [c for c in limits.nearest(held, asked, others) if c >= asked]
        counts |= dict.fromkeys(held, min(above, default=size))
    refusal = limits.refuse(counts)
    if refusal is not None:
        said = ", ".join(f"{least[held[0]]} of '{held[0]}'" for held in sets)
        raise InfeasibleError(
            f"no config is as wide as the widest blocks ({said}): {refusal.reason}",
            hint="export.layout: per_layer, or allocation: uniform",
        )
    return counts


def _filled(kept: tuple[int, ...], count: int, size: int) -> tuple[int, ...]:
    """`kept`, and as many of the first removed indices as make `count`."""
    removed = [index for index in range(size) if index not in set(kept)]
    return tuple(sorted((*kept, *removed[: count - len(kept)])))


def _check_zeros(wide: Mapping[str, Sequence[int]], kept: Mapping[str, Sequence[int]], graph: Graph) -> None:
    padded = [axis for axis, indices in wide.items() if len(indices) > len(kept[axis])]
    faults = [axis for axis in padded if graph.group(axis).normalised]
    faults += [axis for axis in padded if graph.group(axis).kind == "expert"]
    if faults:
        raise InfeasibleError(
            f"zeros are not the same as absence in {', '.join(faults)}: a norm divides by the width, or a "
            "softmax runs over it",
            hint="keep the same count everywhere for this kind, or export.layout: per_layer",
        )


class ZeroedSource:
    """A TensorSource with a Plan's values in place and what it removes zero, all shapes as they were."""

    def __init__(self, source: TensorSource, plan: Plan, graph: Graph) -> None:
        self._source = source
        self._cuts = cuts_of(plan, graph)
        roots = {name: p.tied_to or name for name, p in graph.parameters.items()}
        values = {roots.get(name, name): value for name, value in plan.values.items()}
        self._values = {name: values[root] for name, root in roots.items() if root in values}
        self._silent = silent_params(plan, graph)

    def names(self) -> tuple[str, ...]:
        """Names of the source."""
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape in the source."""
        return self._source.shape(name)

    def get(self, name: str) -> Tensor:
        """The tensor in force."""
        value = self._values.get(name)
        tensor = self._source.get(name)
        if isinstance(value, Tensor):
            tensor = described_like(tensor, value)
        if name in self._silent:
            return torch.zeros_like(tensor)
        for dim, kept in self._cuts.get(name, {}).items():
            removed = np.setdiff1d(np.arange(tensor.shape[dim]), kept)
            tensor = tensor.index_fill(dim, torch.from_numpy(removed).to(tensor.device), 0)
        return tensor
