"""What depends on the model's inputs: every value that an op made of one that does.

Tensors that are only as large as another (``zeros_like``, ``new_full``) hold the same numbers whatever the
inputs say. A write into a view is a write into what it is a view of. Not here: which index sets are locked
for it (`rule`).
"""

from __future__ import annotations

from collections.abc import Iterable

from surgeon.trace.record import Event

__all__ = ["Taint"]

_FILLED = frozenset(
    {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
)
_ALIASING = frozenset(
    {
        "view",
        "slice",
        "select",
        "transpose",
        "permute",
        "t",
        "unsqueeze",
        "squeeze",
        "expand",
        "alias",
        "detach",
    }
    | {"_unsafe_view", "split", "split_with_sizes", "unbind", "as_strided", "diagonal", "unfold"}
)


class Taint:
    """Numbers of values that depend on the inputs, as events are told in order."""

    def __init__(self, inputs: Iterable[int] = ()) -> None:
        self.values = set(inputs)
        self._bases: dict[int, int] = {}

    def follow(self, event: Event) -> None:
        """Spread over what `event` made, or wrote into."""
        inputs, outputs = event.inputs, event.outputs
        if event.name in _ALIASING and inputs:
            self._bases.update({value.id: inputs[0].id for value in outputs})
        if event.name in _FILLED or not any(value.id in self.values for value in inputs):
            return
        for value in outputs:
            written: int | None = value.id
            while written is not None:
                self.values.add(written)
                in_place = event.name.endswith("_") and not event.name.endswith("__")
                written = self._bases.get(written) if in_place else None
