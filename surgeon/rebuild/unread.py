"""Unread: a tensor that a model computes with and that is read for each use, then forgotten.

What a forward pass needs at once is one weight, so a model whose weights are Unread runs in the memory of
its largest one, whatever its size; an embedding reads the rows that are looked up, a wide projection is
computed in pieces, an expert of a fused tensor is read alone. No module is changed and no border between
blocks has to be known. Not here: where the numbers come from (`lazy`), and what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel

from surgeon.rebuild.lazy import Lazy, as_lazy
from surgeon.rebuild.skeleton import load_into
from surgeon.rebuild.tensors import TensorSource

__all__ = ["Unread", "described_like", "unread_module"]

PIECE = 1 << 24
"""Bytes of a weight that is read at once, where a function can be computed in pieces."""
LAZY = frozenset(
    "to index_fill index_select detach clone contiguous __getitem__ select narrow double float".split()
)
"""Functions whose result is a description of what to read, too."""
TOLD = frozenset(
    "size dim numel __len__ is_floating_point is_complex element_size stride __get__ __set__ __hash__".split()
)
"""Functions that need no element."""
WIDE = {"double": torch.float64, "float": torch.float32}


class Unread(Tensor):
    """A tensor of the shape and dtype of `lazy`, on `target`; functions of torch read it."""

    lazy: Lazy
    target: torch.device

    @staticmethod
    def __new__(cls, lazy: Lazy, target: torch.device | str = "cpu") -> Unread:
        """Describe a tensor; nothing is read."""
        made = Tensor._make_wrapper_subclass(cls, lazy.shape, dtype=lazy.dtype, device=torch.device(target))  # type: ignore[attr-defined]
        made.lazy, made.target = lazy, torch.device(target)
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        """Shape and dtype."""
        return f"Unread({list(self.shape)}, {self.dtype})"

    def values(self) -> Tensor:  # type: ignore[override]
        """The tensor itself, read now."""
        return self.lazy.read().to(self.target)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.__name__
        if name in TOLD:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if name == "requires_grad_":  # there is no storage that a gradient could be of
            return args[0]
        if name in LAZY and isinstance(args[0], Unread):
            found = _described(func, args, kwargs)
            if found is not None:
                return found
        pieces = _PIECEWISE.get(name)
        if pieces is not None and isinstance(args[1] if len(args) > 1 else kwargs["weight"], Unread):
            return pieces(*args, **kwargs)
        return func(*tree_map(_read, args), **tree_map(_read, kwargs))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return func(*tree_map(_read, args), **tree_map(_read, kwargs or {}))


def unread_module(
    blank: PreTrainedModel, source: TensorSource, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """`blank`, a module without storage, with every tensor Unread: it runs, and is not to be trained.

    Raises:
        RebuildError: the tensors do not fit the module.
    """
    stream = ((name, Unread(as_lazy(source.get(name)), device)) for name in source.names())
    return cast(PreTrainedModel, load_into(blank, stream))


def described_like(tensor: Tensor, value: Tensor) -> Tensor:
    """`value` in the dtype of `tensor` and, where that is read at each use, cast at each use too."""
    value = value.detach()
    if isinstance(tensor, Unread):
        return Unread(as_lazy(value), tensor.target).to(dtype=tensor.dtype)
    return value.to(device=tensor.device, dtype=tensor.dtype)


def _read(value: object) -> object:
    return value.values() if isinstance(value, Unread) else value


def _described(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The result of a function that only selects, fills or casts; None where it does not."""
    first, others = args[0], args[1:]
    if func.__name__ == "__getitem__" and not isinstance(others[0], int | slice):
        index = others[0]
        if not (isinstance(index, Tensor) and index.ndim == 0 and not index.is_floating_point()):
            return None
        others = (int(index),)
    if func.__name__ in WIDE:
        func, others = Tensor.to, (WIDE[func.__name__],)
    found = first.lazy.__torch_function__(func, (Lazy,), (first.lazy, *others), kwargs)
    return Unread(found, first.target) if isinstance(found, Lazy) else None


def _linear(input: Tensor, weight: Unread, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, the outputs in pieces that are small enough."""
    rows = weight.shape[0]
    step = max(1, PIECE * rows // max(1, weight.numel() * weight.dtype.itemsize))
    x = input.values() if isinstance(input, Unread) else input
    parts = [
        F.linear(x, weight.lazy.keep(0, np.arange(at, min(at + step, rows))).read().to(weight.target))
        for at in range(0, rows, step)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
    return out if bias is None else out + bias


def _embedding(input: Tensor, weight: Unread, *args: Any, **kwargs: Any) -> Tensor:
    """``F.embedding``, of which only the rows that are looked up are read."""
    rows, places = torch.unique(input, return_inverse=True)
    return F.embedding(places, weight.lazy.keep(0, rows.cpu().numpy()).read().to(weight.target))


_PIECEWISE: dict[str, Callable[..., Tensor]] = {"linear": _linear, "embedding": _embedding}
