"""`trace`: the Graph of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surgeon.api.subject import ModelLike, Subject
from surgeon.graph import Graph
from surgeon.trace import trace_module

__all__ = ["trace"]


def trace(
    model: ModelLike,
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    strict: bool = False,
) -> Graph:
    """The Graph of a model: Groups, Stacks, and why they are coupled. No weight is read.

    Args:
        model: a module, on the meta device or real; a config; or a checkpoint's folder or hub id.
        inputs: keyword arguments of one forward pass, or of several that reach different parts, for a
            module of your own; transformers' models need none. Batch and length should be primes that no
            parameter dim has.
        strict: make an op without a rule an error; by default it locks the axes that enter it.

    Raises:
        TraceError: the model cannot be recorded.
        CheckpointError: the folder holds no model.
    """
    return trace_module(Subject(model).structure, inputs, strict=strict)
