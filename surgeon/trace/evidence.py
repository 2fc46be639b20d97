"""The couplings as a networkx graph: parameter dims, anonymous axes, and the op behind each edge."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

from surgeon.trace.unify import Binding

__all__ = ["coupling_graph"]


def coupling_graph(
    initial: Mapping[str, list[int]], bindings: list[Binding], axes: Mapping[int, str]
) -> nx.MultiDiGraph:
    """Edges lead from a parameter dim to its first axis, and from every axis to what it became.

    Args:
        initial: for every parameter the number of the Atom that each dim started as.
        bindings: what the trace found out, in order.
        axes: names of the Axes by Atom number.
    """
    graph = nx.MultiDiGraph()
    for param, numbers in initial.items():
        for dim, number in enumerate(numbers):
            graph.add_edge((param, dim), number, op="dim", module="")
    for binding in bindings:
        for target in binding.to:
            graph.add_edge(binding.atom, target, op=binding.op, module=binding.module)
    for number, name in axes.items():
        graph.add_node(number, axis=name)
    return graph
