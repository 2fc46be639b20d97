"""What functions of torch make of described tensors: selections, joins and casts where they are such.

What is not listed is computed by torch when it is read. Not here: the tensors themselves (`lazy_nodes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from surgeon.graph.layout import Positions
from surgeon.rebuild.lazy_nodes import Lazy, Value, keep
from surgeon.rebuild.lazy_shapes import Cast, Filled, Flat, Joined, Lifted, swap

__all__ = ["FUNCTIONS", "as_lazy"]


def as_lazy(tensor: Tensor | Lazy) -> Lazy:
    """The same tensor, as a Lazy one; what a module computes with and reads itself is described already."""
    if isinstance(tensor, Lazy):
        return tensor
    described = getattr(tensor, "lazy", None)
    return described if isinstance(described, Lazy) else Value(tensor)


def _narrow(tensor: Lazy, dim: int, start: int, length: int) -> Lazy:
    dim %= tensor.ndim
    return keep(tensor, dim, np.arange(start, start + length))


def _cat(tensors: Sequence[Tensor | Lazy], dim: int = 0, **_: object) -> Lazy:
    parts = [as_lazy(tensor) for tensor in tensors]
    return parts[0] if len(parts) == 1 else Joined(parts, dim % parts[0].ndim)


def _stack(tensors: Sequence[Tensor | Lazy], dim: int = 0, **_: object) -> Lazy:
    lifted = [_unsqueeze(as_lazy(tensor), dim) for tensor in tensors]
    return _cat(lifted, dim)


def _unsqueeze(tensor: Lazy, dim: int) -> Lazy:
    return Lifted(tensor, dim % (tensor.ndim + 1))


def _squeeze(tensor: Lazy, dim: int | None = None) -> Any:
    if dim is None:
        return NotImplemented
    dim %= tensor.ndim
    if tensor.shape[dim] != 1:
        return tensor
    if isinstance(tensor, Lifted) and tensor.lifted == dim:
        return tensor.base
    return Flat(tensor, dim)


def _chunk(tensor: Lazy, chunks: int, dim: int = 0) -> tuple[Lazy, ...]:
    return _split(tensor, -(-tensor.shape[dim] // chunks), dim)


def _split(tensor: Lazy, size: int | Sequence[int], dim: int = 0) -> tuple[Lazy, ...]:
    total = tensor.shape[dim]
    sizes = [min(size, total - at) for at in range(0, total, size)] if isinstance(size, int) else list(size)
    starts = [end - length for end, length in zip(accumulate(sizes), sizes, strict=True)]
    return tuple(_narrow(tensor, dim, at, length) for at, length in zip(starts, sizes, strict=True))


def _select(tensor: Lazy, dim: int, index: int) -> Any:
    dim %= tensor.ndim
    return _squeeze(_narrow(tensor, dim, index % tensor.shape[dim], 1), dim)


def _unbind(tensor: Lazy, dim: int = 0) -> tuple[Any, ...]:
    return tuple(_select(tensor, dim, index) for index in range(tensor.shape[dim]))


def _item(tensor: Lazy, index: Any) -> Any:
    if isinstance(index, int):
        return _select(tensor, 0, index)
    if isinstance(index, slice):
        return keep(tensor, 0, np.arange(tensor.shape[0])[index])
    return NotImplemented


def _index_select(tensor: Lazy, dim: int, index: Tensor) -> Lazy:
    return keep(tensor, dim % tensor.ndim, cast(Positions, index.cpu().numpy()))


def _index_fill(tensor: Lazy, dim: int, index: Tensor, value: float) -> Lazy:
    return Filled(tensor, dim % tensor.ndim, cast(Positions, index.cpu().numpy()), value)


def _to(tensor: Lazy, *args: object, **kwargs: object) -> Lazy:
    """A cast, to a dtype or to that of another tensor; a device is left to whoever reads."""
    dtype = kwargs.get("dtype")
    for told in (*args, kwargs.get("other")):
        if isinstance(told, Tensor | Lazy):
            dtype = told.dtype
        elif isinstance(told, torch.dtype):
            dtype = told
    return tensor if dtype in (None, tensor.dtype) else Cast(tensor, cast(torch.dtype, dtype))


def _same(tensor: Lazy, *_: object, **__: object) -> Lazy:
    return tensor


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "cat": _cat,
    "concat": _cat,
    "stack": _stack,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "chunk": _chunk,
    "split": _split,
    "narrow": _narrow,
    "select": _select,
    "unbind": _unbind,
    "__getitem__": _item,
    "index_select": _index_select,
    "index_fill": _index_fill,
    "to": _to,
    "transpose": swap,
    "contiguous": _same,
    "clone": _same,
    "detach": _same,
}
"""By the name that torch gives them."""
