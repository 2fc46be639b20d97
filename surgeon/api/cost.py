"""What a model takes after a Plan: parameters, bytes, and the cache of a token."""

from __future__ import annotations

from surgeon.graph import Graph
from surgeon.plan import Cost, Plan, kv_cache_elements, parameters_after

__all__ = ["cost_of"]


def cost_of(plan: Plan, graph: Graph, width: int) -> Cost:
    """What the model takes after `plan`, its weights and its cache with `width` bytes an element."""
    parameters = parameters_after(plan, graph)
    cached = kv_cache_elements(plan, graph)
    return Cost(
        parameters=parameters,
        bytes=parameters * width,
        kv_cache_bytes_per_token=None if cached is None else cached * width,
    )
