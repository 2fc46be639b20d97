"""Why two parameters are coupled: the chain of ops between them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import networkx as nx

from surgeon.errors import SurgeonError
from surgeon.graph.graph import Graph
from surgeon.registry import nearest

__all__ = ["Link", "why"]


@dataclass(frozen=True, slots=True)
class Link:
    """One step of a chain: `op`, run in `module`, made `left` and `right` one axis.

    `left` and `right` are ``param[dim]``, or ``·`` for an activation in between.
    """

    left: str
    right: str
    op: str
    module: str


def why(graph: Graph, left: str, right: str) -> dict[str, tuple[Link, ...]]:
    """For every Axis that two parameters share: the ops that couple them, in order.

    Args:
        graph: a traced Graph, with its evidence.
        left: name of a parameter.
        right: name of another.

    Raises:
        SurgeonError: an unknown parameter.
    """
    for name in (left, right):
        if name not in graph.parameters:
            raise SurgeonError(
                f"the model has no parameter '{name}'", hint=nearest(name, list(graph.parameters))
            )
    chains: dict[str, tuple[Link, ...]] = {}
    evidence = graph.couplings or nx.MultiDiGraph()
    roots = {data["axis"]: node for node, data in evidence.nodes(data=True) if "axis" in data}
    for group in graph.groups:
        dims = {name: [site.dim for site in group.sites if site.param == name] for name in (left, right)}
        if not dims[left] or not dims[right] or group.name not in roots:
            continue
        path = _path(evidence, roots[group.name], (left, dims[left][0]), (right, dims[right][0]))
        if path is not None:
            chains[group.name] = path
    return chains


def _path(couplings: nx.MultiDiGraph, root: int, start: object, end: object) -> tuple[Link, ...] | None:
    """The chain between two dims among the axes that became `root`."""
    became = nx.ancestors(couplings, root) | {root}
    among = couplings.subgraph(became).to_undirected(as_view=True)
    if start not in among or end not in among:
        return None
    nodes = nx.shortest_path(among, start, end)
    links = []
    for one, other in itertools.pairwise(nodes):
        edge = next(iter(among.get_edge_data(one, other).values()))
        if edge["op"] != "dim":
            links.append(Link(_label(one), _label(other), edge["op"], edge["module"]))
    return tuple(_named(links, nodes))


def _label(node: object) -> str:
    return f"{node[0]}[{node[1]}]" if isinstance(node, tuple) else "·"


def _named(links: list[Link], nodes: list) -> list[Link]:
    """The same links with the two ends named after the parameters they start and end at."""
    if links:
        links[0] = Link(_label(nodes[0]), links[0].right, links[0].op, links[0].module)
        links[-1] = Link(links[-1].left, _label(nodes[-1]), links[-1].op, links[-1].module)
    return links
