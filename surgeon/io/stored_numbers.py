"""Stored tensors as numbers of numpy, read from a file without torch.

numpy has no bfloat16; its bits are the upper half of a float32, so they become one by a shift. Not here:
which tensor of a model a stored one is (`disk_source`, `outlines`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.io.header import TensorHeader
from surgeon.io.slices import Files

__all__ = ["has_numbers", "stored_numbers"]


def _widened(bits: npt.NDArray[np.uint16], out: npt.NDArray[np.float32]) -> None:
    np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)


NUMBERS: dict[str, tuple[type[np.generic], type[np.floating], Callable[[Any, Any], None] | None]] = {
    "BF16": (np.uint16, np.float32, _widened),
    "F16": (np.float16, np.float32, lambda found, out: np.copyto(out, found)),
    "F32": (np.float32, np.float32, None),
    "F64": (np.float64, np.float64, None),
}
"""How elements of each type are read, as what they are given, and what makes these of them, exactly."""


def has_numbers(stored: TensorHeader) -> bool:
    """Whether the elements of a stored tensor can be had as numbers."""
    return stored.dtype in NUMBERS and bool(stored.shape)


def stored_numbers(files: Files, stored: TensorHeader, starts: range) -> Iterator[npt.NDArray[np.floating]]:
    """Runs of entries of the first dim of a stored tensor, in float32 or float64, all in the same memory.

    One from each of `starts`, as long as their step; each counts until the next one is asked for.

    Raises:
        CheckpointError: the file is gone, or ended.
    """
    (size, *others), (kind, wide, widen) = stored.shape, NUMBERS[stored.dtype]
    row = prod(others)
    most = min(starts.step, size) * row
    given = np.empty(most, wide)
    read = np.empty(most, kind) if widen else given
    for start in starts:
        rows = min(start + starts.step, size) - start
        count = rows * row
        files.fill(stored, start * row * read.itemsize, read[:count].view(np.uint8).data)
        if widen:
            widen(read[:count], given[:count])
        yield given[:count].reshape(rows, *others)
