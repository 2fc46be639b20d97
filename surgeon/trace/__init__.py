"""module → Graph: record ops, propagate dimension expressions, find Groups and Stacks."""

from surgeon.trace.trace import recorded_inputs, trace_module

__all__ = ["recorded_inputs", "trace_module"]
