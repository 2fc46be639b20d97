"""From kept indices of Axes to kept positions of tensor dims."""

from __future__ import annotations

import numpy as np

from surgeon.graph import Graph
from surgeon.graph.layout import Positions
from surgeon.plan.plan import Plan

__all__ = ["Cuts", "cuts_of"]

Cuts = dict[str, dict[int, Positions]]
"""For every sliced parameter and dim: the kept positions, ascending, in the original index space."""


def cuts_of(plan: Plan, graph: Graph) -> Cuts:
    """Kept positions of every parameter that `plan` slices.

    A position goes when any Axis that owns it loses the index it belongs to; so cuts of several
    Axes in one dim (kv groups and heads of a fused projection) compose by intersection.
    """
    kept_axes = plan.kept()
    masks: dict[tuple[str, int], np.ndarray] = {}
    for axis, indices in kept_axes.items():
        group = graph.group(axis)
        gone = np.ones(group.size, dtype=bool)
        gone[np.asarray(indices, dtype=np.int64)] = False
        removed = np.flatnonzero(gone)
        for site in group.sites:
            key = (site.param, site.dim)
            if key not in masks:
                masks[key] = np.ones(graph.parameters[site.param].shape[site.dim], dtype=bool)
            masks[key][site.layout.positions(removed).reshape(-1)] = False
    cuts: Cuts = {}
    for (param, dim), mask in masks.items():
        if not mask.all():
            cuts.setdefault(param, {})[dim] = np.flatnonzero(mask)
    return cuts
