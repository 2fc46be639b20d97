"""Block, Sublayer and Stack: the residual structure of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Block", "Stack", "Sublayer", "SublayerRole"]

SublayerRole = Literal["attn", "mlp", "mixer"]


@dataclass(frozen=True, slots=True)
class Sublayer:
    """One summand that a Block adds to the residual stream.

    `name` is the module path of what computes it; `modules` are the direct children of the Block
    that belong to it (the norms around it included); `role` comes from the dataflow: ``attn`` where
    two activations are contracted, ``mlp`` where only weights are, ``mixer`` for recurrences. `joins` is
    the module path under which the summand is added: the Block's own, or that of one of `modules`, which
    then carries the stream as well.
    """

    name: str
    role: SublayerRole
    modules: tuple[str, ...] = ()
    joins: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """A module whose output is its input plus something, both on the residual Axis."""

    name: str
    index: int
    sublayers: tuple[Sublayer, ...] = ()

    def sublayer(self, role: SublayerRole) -> Sublayer | None:
        """The first sublayer with that role."""
        return next((part for part in self.sublayers if part.role == role), None)


@dataclass(frozen=True, slots=True)
class Stack:
    """Ordered Blocks of one container that share one residual stream; `axis` names the stream."""

    container: str
    blocks: tuple[Block, ...]
    axis: str | None = None

    def __len__(self) -> int:
        return len(self.blocks)
