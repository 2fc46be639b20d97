"""From kept indices of Axes, and from dropped Blocks, to kept positions of tensor dims.

A tensor outside of the Blocks may hold a part for each of them: features that are embedded once, and of
which every Block reads its own. Where a Block goes, its part goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from surgeon.graph import Block, Graph, Group, Site, Stack
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

    def take_out(site: Site, positions: Positions) -> None:
        key = (site.param, site.dim)
        if key not in masks:
            masks[key] = np.ones(graph.parameters[site.param].shape[site.dim], dtype=bool)
        masks[key][positions.reshape(-1)] = False

    for axis, indices in kept_axes.items():
        group = graph.group(axis)
        gone = np.ones(group.size, dtype=bool)
        gone[np.asarray(indices, dtype=np.int64)] = False
        removed = np.flatnonzero(gone)
        for site in group.sites:
            take_out(site, site.layout.positions(removed))
    for site, positions in _parts_of_dropped(plan, graph):
        take_out(site, positions)
    cuts: Cuts = {}
    for (param, dim), mask in masks.items():
        if not mask.all():
            cuts.setdefault(param, {})[dim] = np.flatnonzero(mask)
    return cuts


def _parts_of_dropped(plan: Plan, graph: Graph) -> Iterator[tuple[Site, Positions]]:
    """Where tensors outside of the Blocks hold the parts of Blocks that are dropped."""
    dropped = set(plan.dropped)
    for stack in graph.stacks if dropped else ():
        gone = [place for place, block in enumerate(stack.blocks) if block.name in dropped]
        for group in graph.groups if gone else ():
            for site, mode in _parts_by_block(group, stack, graph):
                yield site, replace(site.layout, axis_mode=mode).positions(gone)


def _parts_by_block(group: Group, stack: Stack, graph: Graph) -> list[tuple[Site, int]]:
    """Sites with the mode that counts the Blocks, if all that makes this Axis for the Blocks has one.

    The Axis lies in every Block, and whatever produces it outside of them has as many copies of it, side
    by side, as there are Blocks. The Blocks of another Stack, of as many heads, have no part for these.
    """
    outside = [site for site in group.sites if not any(_within(site, block) for block in stack.blocks)]
    made = [site for site in outside if site.role == "producer"]
    everywhere = all(any(_within(site, block) for site in group.sites) for block in stack.blocks)
    loose = [site for site in outside if not any(_within(site, block) for block in graph.blocks)]
    found = [(site, mode) for site in loose for mode in _counting(site, len(stack.blocks))]
    held = {site for site, _ in found}
    whole = len(held) == len(found) and all(site in held for site in made)
    return found if made and everywhere and whole and len(stack.blocks) > 1 else []


def _counting(site: Site, blocks: int) -> list[int]:
    """Modes beside that of the Axis that have one step for each Block."""
    modes = enumerate(site.layout.modes)
    return [place for place, mode in modes if place != site.layout.axis_mode and mode.extent == blocks]


def _within(site: Site, block: Block) -> bool:
    return site.param.startswith(f"{block.name}.")
