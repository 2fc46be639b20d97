"""OnDemand: the weights that a plan looks at, each read from the checkpoint when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from surgeon.errors import CheckpointError
from surgeon.io.disk_source import DiskTensor
from surgeon.rebuild import ModuleSource
from surgeon.rebuild.tensors import Numbers, as_numbers
from surgeon.rebuild.unread import Unread

__all__ = ["OnDemand"]


class OnDemand:
    """Tensors of `module`, those that lie on disk as their values; `name` of the model is for messages."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._source = ModuleSource(module)
        self._name = name

    def names(self) -> tuple[str, ...]:
        """All names, aliases included."""
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor; it is not read."""
        return self._source.shape(name)

    def get(self, name: str) -> Tensor:
        """One tensor, read now where it lies on disk.

        Raises:
            CheckpointError: it holds NaN or infinity, which make every score worthless.
        """
        return self._read(self._source.get(name), name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Consecutive entries of the first dim of one tensor; nothing else of it is read.

        Raises:
            CheckpointError: they hold NaN or infinity.
        """
        return self._read(self._source.get(name)[start:stop], name)

    def numbers(self, name: str, starts: range) -> Iterator[Numbers]:
        """Runs of such entries as numbers; what is not finite is for the reader to see."""
        found = self._source.get(name)
        stored = found.lazy if isinstance(found, Unread) else None
        read = stored.numbers(starts) if isinstance(stored, DiskTensor) else None
        return (as_numbers(found[at : at + starts.step]) for at in starts) if read is None else read

    def _read(self, found: Tensor, name: str) -> Tensor:
        if not isinstance(found, Unread):
            return found
        values = found.values()
        if values.is_floating_point() and not _finite(values):
            raise CheckpointError(
                f"the weights in {self._name} hold NaN or infinite values, in '{name}' first",
                hint="a checkpoint whose training did not diverge",
            )
        return values


def _finite(values: Tensor) -> bool:
    """A sum is finite only where all elements are, and much quicker than a look at each of them."""
    return bool(values.sum().isfinite()) or bool(torch.isfinite(values).all())
