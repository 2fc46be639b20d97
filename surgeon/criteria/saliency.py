"""Sums over all of a tensor but one dim, in float64, without a float64 copy of the tensor.

Weights are read in blocks of rows, so that they need be in memory only in part, and what is computed of a
block stays in the processor's cache. Torch is kept from dividing every operation on a block among threads:
to wait for the last of them, each time, takes longer than is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor

from surgeon.rebuild import TensorSource
from surgeon.rebuild.tensors import rows_of

__all__ = ["Element", "sum_to_dim", "summed", "widened"]

BLOCK = 1 << 19
"""Elements that are looked at together."""

Element = Callable[[Tensor, slice], Tensor]
"""From rows of a parameter, in float64, and which ones they are, to what each element is worth."""


def summed(weights: TensorSource, param: str, dim: int, element: Element) -> Tensor:
    """Sum of what the elements of a parameter are worth over every dim but `dim`; float64 [size of dim].

    The parameter has a dim.
    """
    size, *others = weights.shape(param)
    step = max(1, BLOCK // max(1, prod(others)))
    read, parts = rows_of(weights), []
    with _undivided():
        for start in range(0, size or 1, step):
            rows = slice(start, min(start + step, size))
            block = read(param, rows.start, rows.stop).to(torch.float64)
            parts.append(sum_to_dim(element(block, rows), dim))
    return torch.cat(parts) if dim == 0 else torch.stack(parts).sum(0)


@contextmanager
def _undivided() -> Iterator[None]:
    """Torch computes in the calling thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def widened(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or as it is where it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def sum_to_dim(tensor: Tensor, dim: int) -> Tensor:
    """Sum over every dim but `dim`, accumulated in float64; [size of dim]."""
    others = tuple(other for other in range(tensor.ndim) if other != dim)
    return tensor.sum(others, dtype=torch.float64) if others else tensor.to(torch.float64)
