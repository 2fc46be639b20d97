"""module → Graph: record ops, propagate dimension expressions, find Groups and Stacks."""

from surgeon.trace.trace import trace_module

__all__ = ["trace_module"]
