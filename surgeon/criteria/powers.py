"""Sums of powers of weights over all of a tensor but one dim, in float64, as quick as the disk gives them.

Weights are read as numbers, block by block into the same memory, two blocks at a time, since numpy lets
others compute meanwhile. Needs no torch. Not here: sums of other things than powers (`saliency`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from surgeon.rebuild.tensors import TensorSource, numbers_of

__all__ = ["Norm", "powers"]

Norm = Literal["l1", "l2"]
"""Of what the power is taken: absolute values, or squares."""

BLOCK = 1 << 18
"""Elements that are looked at together: so many that taking turns with the interpreter costs little."""
THREADS = 2
"""Parts of a tensor that are looked at at the same time, each block by block."""


def powers(weights: TensorSource, param: str, dim: int, norm: Norm) -> npt.NDArray[np.float64]:
    """Sum of abs(w) or w^2 over every dim of a parameter but `dim`; float64 [size of dim].

    The parameter has a dim.
    """
    size, *others = weights.shape(param)
    step = max(1, BLOCK // max(1, prod(others)))
    read = numbers_of(weights)

    def part(starts: range) -> npt.NDArray[np.float64]:
        room = np.empty(min(step, size) * prod(others))
        sums = [_summed(block, dim, norm, room) for block in read(param, starts)]
        return np.concatenate(sums) if dim == 0 else np.sum(sums, axis=0)

    starts = range(0, size or 1, step)
    share = -(-len(starts) // THREADS)
    shares = [starts[at : at + share] for at in range(0, len(starts), share)]
    if len(shares) == 1:
        parts = [part(shares[0])]
    else:
        with ThreadPoolExecutor(THREADS) as threads:
            parts = list(threads.map(part, shares))
    found = np.concatenate(parts) if dim == 0 else np.sum(parts, axis=0)
    if not np.isfinite(found).all():
        weights.get(param)  # which says where it comes from, if it is a source that knows
    return found


def _summed(
    block: npt.NDArray[np.floating], dim: int, norm: Norm, room: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Sums of a block [.., size of dim, ..], which is made wide in `room`."""
    before, size, behind = prod(block.shape[:dim]), block.shape[dim], prod(block.shape[dim + 1 :])
    wide = room[: block.size].reshape(before, size, behind)
    np.copyto(wide, block.reshape(before, size, behind))
    if norm == "l2":
        return np.einsum("abc,abc->b", wide, wide)
    return np.abs(wide, out=wide).sum((0, 2))
