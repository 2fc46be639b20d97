"""Axis: one index set that surgery can shrink. Not here: where it lies in a tensor (`layout`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

__all__ = ["KINDS", "Axis", "AxisKind"]

AxisKind = Literal[
    "hidden",
    "ffn",
    "kv_group",
    "q_per_kv",
    "head_dim",
    "expert",
    "state",
    "vocab",
    "position",
    "channel",
]
KINDS: tuple[AxisKind, ...] = get_args(AxisKind)


@dataclass(frozen=True, slots=True)
class Axis:
    """A named index set, such as ``layers.3.mlp.ffn`` of size 8192."""

    name: str
    kind: AxisKind
    size: int

    def resize(self, size: int) -> Axis:
        """The same Axis with another size."""
        return replace(self, size=size)

    def __str__(self) -> str:
        return f"{self.kind}({self.size})"
