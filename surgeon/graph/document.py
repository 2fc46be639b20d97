"""The Graph as a JSON document, versioned: what ``surgeon graph MODEL --json FILE`` writes."""

from __future__ import annotations

from typing import Any

from surgeon.graph.graph import Graph
from surgeon.graph.group import Group, Site
from surgeon.graph.stack import Stack

__all__ = ["GRAPH_VERSION", "graph_document"]

GRAPH_VERSION = 1


def graph_document(graph: Graph) -> dict[str, Any]:
    """A dict of plain JSON values; ``"surgeon_graph"`` holds the version of its form.

    Index ``i`` of a group owns, in a site's dim, the positions ``offset + i·stride(axis mode) + Σ k·stride``
    over all ``k`` of the other modes. Parameters that share storage appear under each of their names.
    """
    return {
        "surgeon_graph": GRAPH_VERSION,
        "model": {"type": graph.model_type},
        "groups": [_group(group) for group in graph.groups],
        "stacks": [_stack(stack) for stack in graph.stacks],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "axis": group.name,
        "kind": group.kind,
        "size": group.size,
        "block": group.block,
        "locked": group.locked,
        "normalised": group.normalised,
        "sites": [_site(site) for site in group.sites],
    }


def _site(site: Site) -> dict[str, Any]:
    return {
        "param": site.param,
        "dim": site.dim,
        "role": site.role,
        "offset": site.layout.offset,
        "modes": [[mode.extent, mode.stride] for mode in site.layout.modes],
        "axis_mode": site.layout.axis_mode,
    }


def _stack(stack: Stack) -> dict[str, Any]:
    return {
        "container": stack.container,
        "blocks": [block.name for block in stack.blocks],
        "sublayers": {block.name: [part.name for part in block.sublayers] for block in stack.blocks},
    }
