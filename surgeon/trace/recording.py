"""Recording: everything that one forward pass told, before it is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surgeon.graph import Parameter
from surgeon.trace.calls import Call
from surgeon.trace.record import Value
from surgeon.trace.state import TraceState
from surgeon.trace.terms import Term, resolve

__all__ = ["Recording"]


@dataclass(frozen=True)
class Recording:
    """`values` and `initial` give each named tensor's value and the Atoms its dims started as.

    `feeds` are the inputs that were recorded.
    """

    state: TraceState
    parameters: Mapping[str, Parameter]
    values: Mapping[str, Value]
    initial: Mapping[str, list[int]]
    calls: list[Call]
    outputs: Mapping[str, Value]
    feeds: tuple[Mapping[str, Any], ...]

    def terms(self) -> dict[str, list[Term]]:
        """The Term of every dim of every named tensor."""
        return {name: self.dims(value) for name, value in self.values.items()}

    def dims(self, value: Value) -> list[Term]:
        """The Terms of a value."""
        return [resolve(term) for term in self.state.dims_of(value)]

    def touched(self) -> frozenset[str]:
        """Named tensors that some op read."""
        read = {value.id for event in self.state.recorder.events for value in event.inputs}
        return frozenset(name for name, value in self.values.items() if value.id in read)
