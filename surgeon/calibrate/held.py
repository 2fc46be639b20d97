"""Held: a tensor that holds a parameter's elements, and which part of it an operand of an op is.

A projection does not multiply by its parameter but by a view of it: transposed, one expert of many, or
rows gathered by index. Where the operand lies in the parameter follows from its strides, so no module
class has to be known. Not here: which ops are watched (`taps`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Held", "Operand"]


@dataclass(frozen=True, eq=False)
class Operand:
    """Part of a parameter, as an op got it.

    `dims`: the parameter's dim behind each dim of the operand, None for one that repeats or has size 1.
    `whole`: for each dim of the operand, whether it runs over all of that dim of the parameter.
    Of a parameter of three dims, a stack of matrices: `single` is the one matrix that the operand is
    of, `rows` [slices] the matrices along the operand's own dim, whichever of the two applies.
    """

    held: Held
    dims: tuple[int | None, ...]
    whole: tuple[bool, ...]
    single: int | None
    rows: Tensor | None


@dataclass(frozen=True, eq=False)
class Held:
    """`base` holds elements of the parameter called `name`, all of it or gathered slices.

    `dims`: the parameter's dim behind each dim of `base`; `gathered`: which slices of the parameter's
    first dim they are, None where `base` is the parameter itself or keeps all of it.
    """

    name: str
    base: Tensor
    dims: tuple[int, ...]
    gathered: Tensor | None = None

    def find(self, operand: Tensor) -> Operand | None:
        """Where `operand` lies in the parameter; None where it is no plain view of `base`."""
        base = self.base
        start = int(operand.storage_offset()) - int(base.storage_offset())
        if operand.untyped_storage().data_ptr() != base.untyped_storage().data_ptr() or start < 0:
            return None
        begin = [0] * base.ndim
        for dim in sorted(range(base.ndim), key=base.stride, reverse=True):
            if base.shape[dim] > 1:
                begin[dim], start = divmod(start, base.stride(dim))
        if start or any(first >= size for first, size in zip(begin, base.shape, strict=True)):
            return None
        places = self._places(operand)
        if places is None:
            return None
        whole = tuple(p is not None and operand.shape[d] == base.shape[p] for d, p in enumerate(places))
        dims = tuple(None if place is None else self.dims[place] for place in places)
        if base.ndim < 3:
            return Operand(self, dims, whole, None, None)
        first = self.dims.index(0)
        every = (
            torch.arange(base.shape[first], device=base.device) if self.gathered is None else self.gathered
        )
        if first in places:
            at, count = begin[first], operand.shape[places.index(first)]
            return Operand(self, dims, whole, None, every[at : at + count])
        return Operand(self, dims, whole, int(every[begin[first]]), None)

    def _places(self, operand: Tensor) -> tuple[int | None, ...] | None:
        """For each dim of `operand` the dim of `base` with the same stride."""
        free = [dim for dim in range(self.base.ndim)]
        places: list[int | None] = []
        for size, stride in zip(operand.shape, operand.stride(), strict=True):
            if size == 1 or stride == 0:
                places.append(None)
                continue
            fits = [d for d in free if self.base.stride(d) == stride and self.base.shape[d] >= size]
            if not fits:
                return None
            places.append(fits[0])
            free.remove(fits[0])
        return tuple(places)

    def gather(self, indices: Tensor, result: Tensor) -> Held:
        """What `result` holds, which took the slices `indices` of the first dim of `base`."""
        earlier = self.gathered
        taken = indices if earlier is None else earlier[indices]
        return Held(self.name, result, self.dims, taken)
