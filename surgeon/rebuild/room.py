"""Room: memory for what is read, given again once nobody holds what lay in it.

Memory that a process has just been given costs it more than what is read into it (each page is cleared
first): read into the same memory over and over, a weight takes a third of the processor's time. Not here:
what is read (`lazy`, `surgeon.io`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from threading import local
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["Room", "empty_bytes", "empty_tensor"]

Memory = npt.NDArray[np.uint8]

SMALL = 64 << 20
"""Bytes that a thread keeps by itself for pieces of weights."""
SPARE = 16
"""The part of what was once in use that may be kept beside it, as sizes do not always fit."""
LEAST = 256 << 10
"""Bytes below which memory is not kept: it comes cheap."""
LINE = 64
"""Bytes that memory begins at a multiple of, as torch's own does: a matrix product can depend on it."""


class Room:
    """At most `most` bytes; what does not fit into that is memory like any other.

    Memory is free again when no array and no tensor refers to it, so nothing has to be given back. Of free
    memory so much is kept that there is hardly more in all than was once in use. For the time of `used`, all
    that this thread reads lies here where it fits.
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        self._most = most
        self._peak = 0
        self._held: list[Memory] = []

    @contextmanager
    def used(self) -> Iterator[None]:
        """Read into this room."""
        token = _USED.set(self)
        try:
            yield
        finally:
            _USED.reset(token)

    def bytes(self, count: int) -> Memory:
        """Memory of `count` bytes, with anything in it."""
        if count < LEAST:
            return _little(count)
        for at in range(len(self._held)):
            if _free(self._held, at) and count <= len(self._held[at]) <= 2 * count:
                return self._held[at][:count]
        if count <= self._most:
            self._make_room(count)
        memory = np.frombuffer(mmap(-1, count, MAP_PRIVATE | MAP_ANONYMOUS), dtype=np.uint8)
        if count <= self._most:
            self._held.append(memory)
        return memory[:count]

    def _make_room(self, count: int) -> None:
        """Let go of free memory for `count` more bytes; of what is in use, if need be, no longer know."""
        self._held.sort(key=len, reverse=True)
        used = count + sum(len(self._held[at]) for at in range(len(self._held)) if not _free(self._held, at))
        self._peak = max(self._peak, used)
        over = count + sum(map(len, self._held)) - min(self._peak + self._peak // SPARE, self._most)
        for free in (True, False):
            for at in reversed(range(len(self._held))):
                if over > 0 and _free(self._held, at) is free:
                    over -= len(self._held.pop(at))


def empty_bytes(count: int) -> Memory:
    """Memory of `count` bytes, with anything in it, in the Room that is used."""
    room = _USED.get()
    if room is None:
        room = getattr(_OWN, "room", None)
        if room is None:
            room = _OWN.room = Room(SMALL)
    return room.bytes(count)


def empty_tensor(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of that shape on the CPU, with anything in it, in the Room that is used."""
    import torch  # bytes are read without it

    count = prod(shape)
    if not count:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(empty_bytes(count * dtype.itemsize), dtype=dtype, count=count).view(tuple(shape))


def _little(count: int) -> Memory:
    memory = np.empty(count + LINE, dtype=np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + count]


def _references(held: list[Memory], at: int) -> int:
    return sys.getrefcount(held[at])


_ALONE = _references([np.empty(1, dtype=np.uint8)], 0)
"""How many references there are to memory that nobody but its list refers to."""


def _free(held: list[Memory], at: int) -> bool:
    return _references(held, at) == _ALONE


_USED: ContextVar[Room | None] = ContextVar("room", default=None)
_OWN = local()
