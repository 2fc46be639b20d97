"""Limits: which kept sizes the exported model's config can express, as the planner asks for it.

Only the contract and the answer for a layout without limits stand here; what one family's config can
say is measured in `surgeon.rebuild`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

__all__ = ["Limits", "Refusal", "Unlimited"]


@dataclass(frozen=True)
class Refusal:
    """Sizes that the config cannot express: why, and what can `seek` the nearest counts that it can.

    They are sought when somebody wants to know: that may take far longer than to refuse.
    """

    reason: str
    seek: Callable[[], tuple[int, ...]] = field(default=tuple, repr=False, compare=False)

    @cached_property
    def nearest(self) -> tuple[int, ...]:
        """The nearest counts that work; empty where none was found."""
        return self.seek()

    def __str__(self) -> str:
        near = " or ".join(str(count) for count in self.nearest)
        return f"{self.reason}; nearest that works: {near}" if near else self.reason


@runtime_checkable
class Limits(Protocol):
    """What the config can say about the kept sizes of Axes. Axes that are not named keep their size."""

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Partition of `names` into sets of Axes with one common kept size, held by one field."""
        ...

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        """None where the config can express these kept sizes, else why not."""
        ...

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Nearest expressible counts at or below and at or above `count` for one tied set.

        `sizes` are the kept sizes of other Axes. Empty where no count works.
        """
        ...


@dataclass(frozen=True, slots=True)
class Unlimited:
    """Every size of every Axis can be expressed, as in ``layout: per_layer``."""

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Each Axis alone."""
        return tuple((name,) for name in names)

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        """Nothing is refused."""
        return None

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The count itself."""
        return (count,)
