"""`trace`: the Graph of a model."""

from __future__ import annotations

from surgeon.api.subject import ModelLike, Subject
from surgeon.graph import Graph
from surgeon.trace import trace_module

__all__ = ["trace"]


def trace(model: ModelLike, *, strict: bool = False) -> Graph:
    """The Graph of a model: Groups, Stacks, and why they are coupled. No weight is read.

    Args:
        model: a module, on the meta device or real; a config; or a checkpoint's folder or hub id.
        strict: make an op without a rule an error; by default it locks the axes that enter it.

    Raises:
        TraceError: the model cannot be recorded.
        CheckpointError: the folder holds no model.
    """
    return trace_module(Subject(model).structure, strict=strict)
