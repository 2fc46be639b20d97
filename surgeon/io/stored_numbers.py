"""Stored tensors as numbers of numpy, read from a file without torch.

numpy has no bfloat16; its bits are the upper half of a float32, so they become one by a shift. Not here:
which tensor of a model a stored one is (`disk_source`, `outlines`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.io.header import BITS, TensorHeader
from surgeon.io.slices import Files

__all__ = ["has_numbers", "stored_numbers"]


def _widened(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


NUMBERS: dict[str, tuple[type[np.generic], Callable[[Any], npt.NDArray[np.floating]]]] = {
    "BF16": (np.uint16, _widened),
    "F16": (np.float16, lambda found: found.astype(np.float32)),
    "F32": (np.float32, lambda found: found),
    "F64": (np.float64, lambda found: found),
}
"""How elements of each type are read, and what makes float32 or float64 of them, exactly."""


def has_numbers(stored: TensorHeader) -> bool:
    """Whether the elements of a stored tensor can be had as numbers."""
    return stored.dtype in NUMBERS and bool(stored.shape)


def stored_numbers(files: Files, stored: TensorHeader, start: int, stop: int) -> npt.NDArray[np.floating]:
    """Consecutive entries of the first dim of a stored tensor, in float32 or float64.

    Raises:
        CheckpointError: the file is gone, or ended.
    """
    row = prod(stored.shape[1:]) * BITS[stored.dtype] // 8
    kind, widen = NUMBERS[stored.dtype]
    found = np.frombuffer(files.part(stored, start * row, (stop - start) * row), dtype=kind)
    return widen(found).reshape(stop - start, *stored.shape[1:])
