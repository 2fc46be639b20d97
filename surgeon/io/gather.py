"""Gather: kept positions taken from a block of bytes, within memory that the next block uses again.

Memory that the process has just been given costs more than what is done with it, so blocks are small enough
for the processor's cache and their memory is used over and over. Not here: which bytes (`slices`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from surgeon.graph.layout import Positions

__all__ = ["Gather"]


class Gather:
    """Two pieces of memory: what is taken from the one goes into the other."""

    def __init__(self) -> None:
        self._full = np.empty(0, dtype=np.uint8)
        self._spare = np.empty(0, dtype=np.uint8)

    def room(self, nbytes: int) -> memoryview:
        """Memory to put a block into; what was handed out before is no longer to be used."""
        self._full = _grown(self._full, nbytes)
        return self._full.data[:nbytes]

    def taken(self, shape: Sequence[int], width: int, dims: Mapping[int, Positions]) -> memoryview:
        """The bytes of what is kept of the block in `room`.

        Args:
            shape: of the block.
            width: bytes of an element.
            dims: positions that are kept, by dim; all of the other dims.
        """
        block = self._full[: prod(shape) * width].view(f"V{width}").reshape(shape)
        for dim, positions in dims.items():
            kept = (*block.shape[:dim], len(positions), *block.shape[dim + 1 :])
            self._spare = _grown(self._spare, prod(kept) * width)
            out = self._spare[: prod(kept) * width].view(f"V{width}").reshape(kept)
            # The positions exist; any mode but this, the default, would gather in memory of its own first.
            block.take(positions, axis=dim, out=out, mode="clip")
            block = out
            self._full, self._spare = self._spare, self._full
        return self._full.data[: block.nbytes]


def _grown(memory: np.ndarray, nbytes: int) -> np.ndarray:
    return memory if len(memory) >= nbytes else np.empty(nbytes, dtype=np.uint8)
