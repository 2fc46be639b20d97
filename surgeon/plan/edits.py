"""The three Edits that a Plan is made of. Indices always mean the traced model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Assign", "DropBlock", "Edit", "Keep"]


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep exactly `indices` (ascending) of the Axis called `axis`."""

    axis: str
    indices: tuple[int, ...]
    step: int


@dataclass(frozen=True, slots=True)
class DropBlock:
    """Remove the Block (or the sublayer of one) with this module path."""

    block: str
    step: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Put a computed tensor in the place of a parameter, before anything is cut.

    `fn` names the registered function that computed it and `args` its arguments, as a record; the
    tensor itself lies in ``Plan.values[param]``, in the index space of the traced model.
    """

    param: str
    fn: str
    args: Mapping[str, object] = field(default_factory=dict)
    step: int = 0


Edit = Keep | DropBlock | Assign
