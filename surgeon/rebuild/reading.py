"""Reading: the tensors of one place after the other, those of the next by a thread while a device computes.

On the CPU nothing is read ahead: it would take the cores that compute, and memory for two places. Not here:
which tensors they are (`masked`), and what is done at a place (`surgeon.calibrate`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from surgeon.rebuild.absent import alike_lacking
from surgeon.rebuild.room import Room
from surgeon.rebuild.unread import Unread

__all__ = ["Reading", "computes_elsewhere"]

THREAD = "reading-ahead"
"""What the thread that reads is called."""

Tensors = Mapping[str, Tensor]
Place = TypeVar("Place", bound=Hashable)


def computes_elsewhere(module: nn.Module) -> bool:
    """Whether `module` computes on a device that leaves the CPU free to read."""
    return any(parameter.device.type != "cpu" for parameter in module.parameters())


@dataclass(frozen=True, eq=False)
class _Coming:
    """The tensors of a place, and those of them that are being read."""

    place: Hashable
    described: Tensors
    read: Future[dict[str, Tensor]]


class Reading(Generic[Place]):
    """Reads what `describe` gives of a place, into memory that is used again for the next.

    Args:
        describe: tensors by name; those that are Unread will be read.
        ahead: whether a thread reads those of the next place. It is to be closed, then.
    """

    def __init__(self, describe: Callable[[Place], Tensors], ahead: bool = False) -> None:
        self._describe = describe
        self._room = Room()
        self._thread = ThreadPoolExecutor(1, THREAD) if ahead else None
        self._coming: _Coming | None = None

    def at(self, place: Place, then: Place | None = None) -> dict[str, Tensor]:
        """The tensors of `place`, each on its device; `then` is the place that will be asked for next.

        Raises:
            CheckpointError: what is read vanished or was changed.
        """
        coming = self._coming
        if coming is not None and coming.place == place:
            self._coming, described, read = None, coming.described, coming.read.result()
        else:
            described = self._describe(place)
            read = self._read(described)
        found = {
            name: alike_lacking(read[name].to(tensor.target), tensor)
            if isinstance(tensor, Unread)
            else tensor
            for name, tensor in described.items()
        }
        del read, coming  # the next place is read into the same memory
        if self._thread is not None and then is not None:
            self._begin(then, self._thread)
        return found

    def _begin(self, place: Place, thread: ThreadPoolExecutor) -> None:
        if self._coming is None or self._coming.place != place:
            described = self._describe(place)
            self._coming = _Coming(place, described, thread.submit(self._read, described))

    def close(self) -> None:
        """End what is being read."""
        self._coming = None
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _read(self, described: Tensors) -> dict[str, Tensor]:
        with torch.no_grad(), self._room.used():
            return {name: t.lazy.read() for name, t in described.items() if isinstance(t, Unread)}
