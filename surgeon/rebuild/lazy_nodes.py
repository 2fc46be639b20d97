"""Described tensors: stored, in memory, selected, or computed by torch when they are read.

Not here: those made of others (`lazy_shapes`), and which function makes which (`lazy_functions`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from surgeon.graph.layout import Positions

__all__ = ["RULES", "Kept", "Lazy", "Read", "Stored", "Value", "keep"]

Read = Callable[[Mapping[int, Positions]], Tensor]
"""Reads the kept positions of the given dims of a stored tensor, and all of its other dims."""


RULES: dict[str, Callable[..., Any]] = {}
"""What a function of torch gives, by its name; filled by `lazy_functions`."""


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

    @property
    def in_rows(self) -> bool:
        """Whether some entries of the first dim are read for less than all of them."""
        return False

    def read(self) -> Tensor:
        """The tensor itself."""
        raise NotImplementedError

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim, in that order."""
        return Kept(self, {dim: positions})

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
        rule = RULES.get(func.__name__)
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

    @property
    def in_rows(self) -> bool:
        """It is."""
        return True

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


class Kept(Lazy):
    """Kept positions of some dims of another tensor."""

    def __init__(self, base: Lazy, dims: Mapping[int, Positions]) -> None:
        shape = [len(dims[dim]) if dim in dims else size for dim, size in enumerate(base.shape)]
        super().__init__(shape, base.dtype)
        self.base = base
        self.dims = dims

    @property
    def in_rows(self) -> bool:
        """Where the other one is only to be read."""
        return isinstance(self.base, Stored)

    def keep(self, dim: int, positions: Positions) -> Lazy:
        """The given positions of one dim."""
        earlier = self.dims.get(dim)
        return Kept(self.base, {**self.dims, dim: positions if earlier is None else earlier[positions]})

    def read(self) -> Tensor:
        """The tensor itself."""
        if isinstance(self.base, Stored):
            return self.base.reads(self.dims)
        tensor = self.base.read()
        for dim, positions in self.dims.items():
            tensor = tensor.index_select(dim, torch.from_numpy(positions).to(tensor.device))
        return tensor


class Deferred(Lazy):
    """What a function of torch returns, called when it is read; `pick` of several outputs."""

    def __init__(self, call: Callable[[], Any], like: Tensor, pick: int | None) -> None:
        super().__init__(like.shape, like.dtype)
        self.call = call
        self.pick = pick

    def read(self) -> Tensor:
        """The tensor itself."""
        out = self.call()
        return out if self.pick is None else out[self.pick]


def keep(tensor: Lazy, dim: int, positions: Positions) -> Lazy:
    """`tensor.keep`, but the tensor itself where all of it is kept."""
    size = tensor.shape[dim]
    if len(positions) == size and (
        size == 0 or (positions[0] == 0 and bool((np.diff(positions) == 1).all()))
    ):
        return tensor
    return tensor.keep(dim, positions)


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
        return Deferred(call, out, None)
    if isinstance(out, tuple | list) and all(isinstance(one, Tensor) for one in out):
        return tuple(Deferred(call, one, place) for place, one in enumerate(out))
    return out


def _twin(value: object) -> object:
    return Value(value) if isinstance(value, Tensor) else value
