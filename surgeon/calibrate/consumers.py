"""Which parameters a step on some Groups wants watched: those that contract their Axes."""

from __future__ import annotations

from collections.abc import Collection

from surgeon.graph import Graph, Group

__all__ = ["consumer_params"]


def consumer_params(graph: Graph, groups: Collection[Group]) -> tuple[str, ...]:
    """Names of the parameters that contract an Axis of `groups`, in order, tied ones by their first name."""
    names: dict[str, None] = {}
    for group in groups:
        for site in group.sites:
            if site.role == "consumer":
                names.setdefault(graph.parameters[site.param].tied_to or site.param)
    return tuple(names)
