"""Described tensors made of others: joined, lifted, swapped, cast, filled. Each selects as early as it can.

Not here: which function of torch makes which (`lazy_functions`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from surgeon.graph.layout import Positions
from surgeon.rebuild.lazy_nodes import Kept, Lazy, keep
from surgeon.rebuild.room import empty_tensor

__all__ = ["Cast", "Filled", "Flat", "Joined", "Lifted", "Swapped", "swap"]

CAST = 4 << 20
"""Bytes that are read and cast at once."""


class Joined(Lazy):
    """Tensors one after the other along a dim."""

    def __init__(self, parts: Sequence[Lazy], dim: int) -> None:
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        super().__init__(shape, parts[0].dtype)
        self.parts = tuple(parts)
        self.joint = dim
        self.ends = list(accumulate(part.shape[dim] for part in parts))

    @property
    def in_rows(self) -> bool:
        """Where all parts are."""
        return all(part.in_rows for part in self.parts)

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim."""
        if dim != self.joint:
            return Joined([keep(part, dim, positions) for part in self.parts], self.joint)
        found: list[Lazy] = []
        place = 0
        while place < len(positions):
            number = bisect_right(self.ends, positions[place])
            part, begin = self.parts[number], self.ends[number] - self.parts[number].shape[dim]
            inside = (positions[place:] >= begin) & (positions[place:] < self.ends[number])
            count = len(inside) if inside.all() else int(np.argmin(inside))
            found.append(keep(part, dim, positions[place : place + count] - begin))
            place += count
        return found[0] if len(found) == 1 else Joined(found, dim) if found else Kept(self, {dim: positions})

    def read(self) -> Tensor:
        """The tensor itself."""
        out = empty_tensor(self.shape, self.dtype)
        begin = 0
        for part, end in zip(self.parts, self.ends, strict=True):
            out.narrow(self.joint, begin, end - begin).copy_(part.read())
            begin = end
        return out


class Lifted(Lazy):
    """Another tensor with one more dim, of size one."""

    def __init__(self, base: Lazy, dim: int) -> None:
        super().__init__((*base.shape[:dim], 1, *base.shape[dim:]), base.dtype)
        self.base = base
        self.lifted = dim

    @property
    def in_rows(self) -> bool:
        """Where the other one is."""
        return self.base.in_rows

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim."""
        if dim == self.lifted:
            return super().keep(dim, positions)
        return Lifted(keep(self.base, dim - (dim > self.lifted), positions), self.lifted)

    def read(self) -> Tensor:
        """The tensor itself."""
        return self.base.read().unsqueeze(self.lifted)


class Flat(Lazy):
    """Another tensor without a dim of size one."""

    def __init__(self, base: Lazy, dim: int) -> None:
        super().__init__((*base.shape[:dim], *base.shape[dim + 1 :]), base.dtype)
        self.base = base
        self.flat = dim

    @property
    def in_rows(self) -> bool:
        """Where the other one is, and its first dim is not the one that is gone."""
        return self.flat > 0 and self.base.in_rows

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim."""
        return Flat(keep(self.base, dim + (dim >= self.flat), positions), self.flat)

    def read(self) -> Tensor:
        """The tensor itself."""
        return self.base.read().squeeze(self.flat)


class Swapped(Lazy):
    """Another tensor with two dims swapped."""

    def __init__(self, base: Lazy, one: int, two: int) -> None:
        shape = list(base.shape)
        shape[one], shape[two] = shape[two], shape[one]
        super().__init__(shape, base.dtype)
        self.base = base
        self.swapped = frozenset((one, two))

    @property
    def in_rows(self) -> bool:
        """Where the other one is, and has the same first dim."""
        return 0 not in self.swapped and self.base.in_rows

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim."""
        other = next(iter(self.swapped - {dim})) if dim in self.swapped else dim
        return swap(keep(self.base, other, positions), *self.swapped)

    def read(self) -> Tensor:
        """The tensor itself."""
        return self.base.read().transpose(*self.swapped)


class Cast(Lazy):
    """Another tensor in another dtype."""

    def __init__(self, base: Lazy, dtype: torch.dtype) -> None:
        super().__init__(base.shape, dtype)
        self.base = base

    @property
    def in_rows(self) -> bool:
        """Where the other one is."""
        return self.base.in_rows

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim."""
        return Cast(keep(self.base, dim, positions), self.dtype)

    def read(self) -> Tensor:
        """The tensor itself; where rows of the other one can be had alone, it is never there whole."""
        if not (self.ndim and self.numel() and self.base.in_rows):
            return self.base.read().to(self.dtype)
        out, size = empty_tensor(self.shape, self.dtype), self.shape[0]
        step = max(1, CAST * size // (self.numel() * self.base.dtype.itemsize))
        for start in range(0, size, step):
            rows = np.arange(start, min(start + step, size))
            out[start : start + step].copy_(keep(self.base, 0, rows).read())
        return out


class Filled(Lazy):
    """Another tensor with a number at some positions of a dim."""

    def __init__(self, base: Lazy, dim: int, positions: Positions, value: float) -> None:
        super().__init__(base.shape, base.dtype)
        self.base = base
        self.filled = dim
        self.positions = positions
        self.value = value

    @property
    def in_rows(self) -> bool:
        """Where the other one is."""
        return self.base.in_rows

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim."""
        kept = keep(self.base, dim, positions)
        if dim != self.filled:
            return Filled(kept, self.filled, self.positions, self.value)
        return Filled(kept, dim, np.flatnonzero(np.isin(positions, self.positions)), self.value)

    def read(self) -> Tensor:
        """The tensor itself."""
        tensor = self.base.read()
        return tensor.index_fill(self.filled, torch.from_numpy(self.positions).to(tensor.device), self.value)


def swap(tensor: Lazy, dim0: int, dim1: int) -> Lazy:
    """Two dims, called as torch calls them, swapped; of what was swapped so, the tensor itself."""
    one, two = dim0 % tensor.ndim, dim1 % tensor.ndim
    if one == two:
        return tensor
    if isinstance(tensor, Swapped) and tensor.swapped == {one, two}:
        return tensor.base
    return Swapped(tensor, one, two)
