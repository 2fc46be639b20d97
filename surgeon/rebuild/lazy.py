"""Lazy: a tensor that is described and not yet read, for the rebuild and for transformers' conversions.

Names and layouts on disk differ from those in the module, and transformers translates them with ordinary
tensor functions (stack the experts, join gate and up, split them again). Given Lazy tensors, the same
functions describe where the numbers come from. Selecting from a join selects from its parts, splitting it
where it was joined gives the parts back; so a cut, converted from the disk and back, is again a selection
of tensors on disk wherever it can be one, and what is untouched is the stored tensor itself. What is not
known to be a selection is deferred: computed by torch when it is read.

Not here: the bytes (`surgeon.io`), and which functions are called (transformers, `rebuild`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from surgeon.graph.layout import Positions

__all__ = ["Lazy", "Read", "Stored", "Value", "as_lazy", "selection"]

Read = Callable[[Mapping[int, Positions]], Tensor]
"""Reads the kept positions of the given dims of a stored tensor, and all of its other dims."""


class Lazy:
    """A tensor by `shape` and `dtype`; `read` computes it. Functions and methods of torch take it."""

    device = torch.device("cpu")

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.shape = torch.Size(shape)
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one entry of it."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of dims."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        """Whether the elements are floats."""
        return self.dtype.is_floating_point

    def read(self) -> Tensor:
        """The tensor itself."""
        raise NotImplementedError

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim, in that order."""
        return _Kept(self, {dim: positions})

    def __getitem__(self, index: Any) -> Any:
        """An index or a slice of the first dim; ``...`` is all of it."""
        if index is Ellipsis:
            return self
        return self.__torch_function__(Tensor.__getitem__, (Lazy,), (self, index))

    def __getattr__(self, name: str) -> Any:
        """A method of torch's tensors."""
        method = getattr(Tensor, name, None)
        if name.startswith("__") or not callable(method):
            raise AttributeError(f"a lazy tensor has no attribute '{name}'")
        return partial(self._called, method)

    def _called(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.__torch_function__(method, (Lazy,), (self, *args), kwargs)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        rule = _RULES.get(func.__name__)
        if rule is not None:
            found = rule(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return _deferred(func, args, kwargs)


class Stored(Lazy):
    """A tensor that lies somewhere under a name."""

    def __init__(self, name: str, shape: Sequence[int], dtype: torch.dtype, reads: Read) -> None:
        super().__init__(shape, dtype)
        self.name = name
        self.reads = reads

    def read(self) -> Tensor:
        """All of it."""
        return self.reads({})


class Value(Lazy):
    """A tensor that is in memory."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor.shape, tensor.dtype)
        self.tensor = tensor.detach()

    def read(self) -> Tensor:
        """The tensor, which is not to be written to."""
        return self.tensor


class _Kept(Lazy):
    """Kept positions of some dims of another tensor."""

    def __init__(self, base: Lazy, dims: Mapping[int, Positions]) -> None:
        shape = [len(dims[dim]) if dim in dims else size for dim, size in enumerate(base.shape)]
        super().__init__(shape, base.dtype)
        self.base = base
        self.dims = dims

    def keep(self, dim: int, positions: Positions) -> Lazy:
        earlier = self.dims.get(dim)
        return _Kept(self.base, {**self.dims, dim: positions if earlier is None else earlier[positions]})

    def read(self) -> Tensor:
        if isinstance(self.base, Stored):
            return self.base.reads(self.dims)
        tensor = self.base.read()
        for dim, positions in self.dims.items():
            tensor = tensor.index_select(dim, torch.from_numpy(positions).to(tensor.device))
        return tensor


class _Joined(Lazy):
    """Tensors one after the other along a dim."""

    def __init__(self, parts: Sequence[Lazy], dim: int) -> None:
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        super().__init__(shape, parts[0].dtype)
        self.parts = tuple(parts)
        self.joint = dim
        self.ends = list(accumulate(part.shape[dim] for part in parts))

    def keep(self, dim: int, positions: Positions) -> Lazy:
        if dim != self.joint:
            return _Joined([_keep(part, dim, positions) for part in self.parts], self.joint)
        found: list[Lazy] = []
        place = 0
        while place < len(positions):
            number = bisect_right(self.ends, positions[place])
            part, begin = self.parts[number], self.ends[number] - self.parts[number].shape[dim]
            inside = (positions[place:] >= begin) & (positions[place:] < self.ends[number])
            count = len(inside) if inside.all() else int(np.argmin(inside))
            found.append(_keep(part, dim, positions[place : place + count] - begin))
            place += count
        return (
            found[0] if len(found) == 1 else _Joined(found, dim) if found else _Kept(self, {dim: positions})
        )

    def read(self) -> Tensor:
        out = torch.empty(self.shape, dtype=self.dtype)
        begin = 0
        for part, end in zip(self.parts, self.ends, strict=True):
            out.narrow(self.joint, begin, end - begin).copy_(part.read())
            begin = end
        return out


class _Lifted(Lazy):
    """Another tensor with one more dim, of size one."""

    def __init__(self, base: Lazy, dim: int) -> None:
        super().__init__((*base.shape[:dim], 1, *base.shape[dim:]), base.dtype)
        self.base = base
        self.lifted = dim

    def keep(self, dim: int, positions: Positions) -> Lazy:
        if dim == self.lifted:
            return super().keep(dim, positions)
        return _Lifted(_keep(self.base, dim - (dim > self.lifted), positions), self.lifted)

    def read(self) -> Tensor:
        return self.base.read().unsqueeze(self.lifted)


class _Flat(Lazy):
    """Another tensor without a dim of size one."""

    def __init__(self, base: Lazy, dim: int) -> None:
        super().__init__((*base.shape[:dim], *base.shape[dim + 1 :]), base.dtype)
        self.base = base
        self.flat = dim

    def keep(self, dim: int, positions: Positions) -> Lazy:
        return _Flat(_keep(self.base, dim + (dim >= self.flat), positions), self.flat)

    def read(self) -> Tensor:
        return self.base.read().squeeze(self.flat)


class _Swapped(Lazy):
    """Another tensor with two dims swapped."""

    def __init__(self, base: Lazy, one: int, two: int) -> None:
        shape = list(base.shape)
        shape[one], shape[two] = shape[two], shape[one]
        super().__init__(shape, base.dtype)
        self.base = base
        self.swapped = frozenset((one, two))

    def keep(self, dim: int, positions: Positions) -> Lazy:
        other = next(iter(self.swapped - {dim})) if dim in self.swapped else dim
        return _swap(_keep(self.base, other, positions), *self.swapped)

    def read(self) -> Tensor:
        return self.base.read().transpose(*self.swapped)


class _Cast(Lazy):
    """Another tensor in another dtype."""

    def __init__(self, base: Lazy, dtype: torch.dtype) -> None:
        super().__init__(base.shape, dtype)
        self.base = base

    def keep(self, dim: int, positions: Positions) -> Lazy:
        return _Cast(_keep(self.base, dim, positions), self.dtype)

    def read(self) -> Tensor:
        return self.base.read().to(self.dtype)


class _Filled(Lazy):
    """Another tensor with a number at some positions of a dim."""

    def __init__(self, base: Lazy, dim: int, positions: Positions, value: float) -> None:
        super().__init__(base.shape, base.dtype)
        self.base = base
        self.filled = dim
        self.positions = positions
        self.value = value

    def keep(self, dim: int, positions: Positions) -> Lazy:
        kept = _keep(self.base, dim, positions)
        if dim != self.filled:
            return _Filled(kept, self.filled, self.positions, self.value)
        return _Filled(kept, dim, np.flatnonzero(np.isin(positions, self.positions)), self.value)

    def read(self) -> Tensor:
        tensor = self.base.read()
        return tensor.index_fill(self.filled, torch.from_numpy(self.positions).to(tensor.device), self.value)


class _Deferred(Lazy):
    """What a function of torch returns, called when it is read; `pick` of several outputs."""

    def __init__(self, call: Callable[[], Any], like: Tensor, pick: int | None) -> None:
        super().__init__(like.shape, like.dtype)
        self.call = call
        self.pick = pick

    def read(self) -> Tensor:
        out = self.call()
        return out if self.pick is None else out[self.pick]


def as_lazy(tensor: Tensor | Lazy) -> Lazy:
    """The same tensor, as a Lazy one; what a module computes with and reads itself is described already."""
    if isinstance(tensor, Lazy):
        return tensor
    described = getattr(tensor, "lazy", None)
    return described if isinstance(described, Lazy) else Value(tensor)


def selection(tensor: Lazy) -> tuple[Stored, Mapping[int, Positions]] | None:
    """The stored tensor, and the positions kept of its dims, whose bytes are those of `tensor`.

    None where the bytes have to be computed.
    """
    while isinstance(tensor, _Lifted | _Flat):
        tensor = tensor.base
    if isinstance(tensor, Stored):
        return tensor, {}
    if isinstance(tensor, _Kept):
        found = selection(tensor.base)
        return (found[0], tensor.dims) if found and found[0] is tensor.base else None
    return None


def _deferred(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The function's outputs, of shapes that it gives for tensors without storage."""

    def blank(value: object) -> object:
        return (
            torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, Lazy) else value
        )

    def real(value: object) -> object:
        return value.read() if isinstance(value, Lazy) else value

    def call() -> Any:
        with torch.no_grad():
            return func(*tree_map(real, args), **tree_map(real, kwargs))

    # Tensors in memory do not meet tensors without storage: the shapes are told by their twins.
    args, kwargs = tree_map(_twin, args), tree_map(_twin, kwargs)
    with torch.no_grad():
        out = func(*tree_map(blank, args), **tree_map(blank, kwargs))
    if isinstance(out, Tensor):
        return _Deferred(call, out, None)
    if isinstance(out, tuple | list) and all(isinstance(one, Tensor) for one in out):
        return tuple(_Deferred(call, one, place) for place, one in enumerate(out))
    return out


def _twin(value: object) -> object:
    return Value(value) if isinstance(value, Tensor) else value


def _keep(tensor: Lazy, dim: int, positions: Positions) -> Lazy:
    """`tensor.keep`, but the tensor itself where all of it is kept."""
    size = tensor.shape[dim]
    if len(positions) == size and (
        size == 0 or (positions[0] == 0 and bool((np.diff(positions) == 1).all()))
    ):
        return tensor
    return tensor.keep(dim, positions)


def _narrow(tensor: Lazy, dim: int, start: int, length: int) -> Lazy:
    dim %= tensor.ndim
    return _keep(tensor, dim, np.arange(start, start + length))


def _swap(tensor: Lazy, one: int, two: int) -> Lazy:
    one, two = one % tensor.ndim, two % tensor.ndim
    if one == two:
        return tensor
    if isinstance(tensor, _Swapped) and tensor.swapped == {one, two}:
        return tensor.base
    return _Swapped(tensor, one, two)


def _cat(tensors: Sequence[Tensor | Lazy], dim: int = 0, **_: object) -> Lazy:
    parts = [as_lazy(tensor) for tensor in tensors]
    return parts[0] if len(parts) == 1 else _Joined(parts, dim % parts[0].ndim)


def _stack(tensors: Sequence[Tensor | Lazy], dim: int = 0, **_: object) -> Lazy:
    lifted = [_unsqueeze(as_lazy(tensor), dim) for tensor in tensors]
    return _cat(lifted, dim)


def _unsqueeze(tensor: Lazy, dim: int) -> Lazy:
    return _Lifted(tensor, dim % (tensor.ndim + 1))


def _squeeze(tensor: Lazy, dim: int | None = None) -> Any:
    if dim is None:
        return NotImplemented
    dim %= tensor.ndim
    if tensor.shape[dim] != 1:
        return tensor
    if isinstance(tensor, _Lifted) and tensor.lifted == dim:
        return tensor.base
    return _Flat(tensor, dim)


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
        return _keep(tensor, 0, np.arange(tensor.shape[0])[index])
    return NotImplemented


def _index_select(tensor: Lazy, dim: int, index: Tensor) -> Lazy:
    return _keep(tensor, dim % tensor.ndim, cast(Positions, index.cpu().numpy()))


def _index_fill(tensor: Lazy, dim: int, index: Tensor, value: float) -> Lazy:
    return _Filled(tensor, dim % tensor.ndim, cast(Positions, index.cpu().numpy()), value)


def _to(tensor: Lazy, *args: object, **kwargs: object) -> Any:
    """A cast; a device is left to whoever reads."""
    if args == () and set(kwargs) <= {"dtype", "device"}:
        dtype = kwargs.get("dtype")
    elif len(args) == 1 and not kwargs:
        dtype = args[0] if isinstance(args[0], torch.dtype) else None
        if dtype is None:
            return NotImplemented
    else:
        return NotImplemented
    return tensor if dtype in (None, tensor.dtype) else _Cast(tensor, cast(torch.dtype, dtype))


def _same(tensor: Lazy, *_: object, **__: object) -> Lazy:
    return tensor


_RULES: dict[str, Callable[..., Any]] = {
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
    "transpose": _swap,
    "contiguous": _same,
    "clone": _same,
    "detach": _same,
}
