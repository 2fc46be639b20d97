"""Several passes one after the other. A pipeline is a tuple of passes, nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from surgeon.graph import Graph
from surgeon.passes.contract import GraphPass

__all__ = ["run_passes"]

Between = Callable[[GraphPass, Graph, Graph], None]
"""Called after each pass with the pass, the Graph before it and the Graph after it."""


def run_passes(pipeline: Sequence[GraphPass], graph: Graph, between: Between | None = None) -> Graph:
    """The Graph after every pass of `pipeline`, in order; the first failure ends it."""
    for place, step in enumerate(pipeline):
        after = step.run(graph, tuple(earlier.op for earlier in pipeline[:place]))
        if between is not None:
            between(step, graph, after)
        graph = after
    return graph
