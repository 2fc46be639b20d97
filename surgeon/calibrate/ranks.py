"""Ranks: the processes that measure together, each its own share of the samples.

Alone there is one. Under a launcher such as ``torchrun``, whoever started the process group decides how
they talk (gloo, nccl); here they share batches out, join what they have accumulated in the order of their
numbers, so that all hold the same, and agree on what is still to be measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, distributed

__all__ = ["Ranks"]

T = TypeVar("T")
Sum = TypeVar("Sum", float, Tensor)


@dataclass(frozen=True)
class Ranks:
    """This process among `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def now(cls) -> Self:
        """The process group that is open, or this process alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this one writes what all have."""
        return self.rank == 0

    def share(self, batches: Sequence[T]) -> tuple[T, ...]:
        """What this rank runs."""
        return tuple(batches[self.rank :: self.size])

    def union(self, names: Collection[str]) -> frozenset[str]:
        """What any rank names."""
        return frozenset(name for part in self._all(sorted(names)) for name in part)

    def total(self, number: Sum) -> Sum:
        """The sum over ranks, the same on each; a tensor lies on the CPU."""
        found, *others = self._all(number)
        for other in others:
            found = found + other
        return found

    def each(self, state: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
        """The states of all ranks by number, one at a time in memory beside this rank's own."""
        described = self._all([(name, tuple(t.shape), t.dtype) for name, t in state.items()])
        for source, tensors in enumerate(described):
            yield {name: self._sent(state.get(name), source, shape, dtype) for name, shape, dtype in tensors}

    def _sent(self, own: Tensor | None, source: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        device = "cuda" if self.size > 1 and distributed.get_backend() == "nccl" else "cpu"
        if source == self.rank and own is not None:
            tensor = own.to(device).contiguous()
        else:
            tensor = torch.empty(shape, dtype=dtype, device=device)
        if self.size > 1:
            distributed.broadcast(tensor, source)
        return tensor

    def _all(self, value: Any) -> list[Any]:
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found
