"""Absent: routing as if some experts were not there, followed through the router's own arithmetic.

A zero is not what a removed expert needs: softmax gives it weight, and a top-k may choose it. So inside
this context every tensor that has a place for a removed expert is known, from the router's parameters
on, by a mask of the places that are gone; and where an operation ranks, normalises or adds up along
them, they take the value that changes nothing: minus infinity to a softmax or a ranking, zero to a sum.
That is the routing of the smaller model, whatever the family does (softmax or sigmoid, a bias on the
choice alone, groups of experts, renormalised or not), and no module class is asked for. A top-k of more
than is left takes what is left.

It works above autograd, so gradients are right too. A function that it has no rule for, met by a tensor
that lacks experts, is an error, never a guess. Not here: what is removed (`surgeon.plan.cuts_of`), and
the experts' own weights (`masked`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from surgeon.errors import RebuildError

__all__ = ["Absent", "alike_lacking", "lacking"]

_GONE = "_places_that_are_gone"
"""Attribute of a tensor that bears its own mark."""


def lacking(tensor: Tensor, gone: Tensor) -> Tensor:
    """`tensor` with a mark of its own for the places that are `gone`, for every Absent that meets it."""
    earlier = getattr(tensor, _GONE, None)
    setattr(tensor, _GONE, gone if earlier is None else gone | earlier)
    return tensor


def alike_lacking(tensor: Tensor, other: Tensor) -> Tensor:
    """`tensor`, which was read from `other` or copied from it, with the mark of that, if it bears one."""
    gone = getattr(other, _GONE, None)
    return tensor if gone is None else lacking(tensor, gone.to(tensor.device))


ELEMENTWISE = frozenset(
    "abs add and bfloat16 clamp clamp_max clamp_min clone contiguous cpu cuda detach div dropout double eq "
    "exp expand_as float floor ge gelu gt half iadd idiv imul invert isfinite isinf isnan isub itruediv "
    "le leaky_relu log log1p log_sigmoid logical_and logical_not logical_or lt masked_fill maximum minimum "
    "mul multiply nan_to_num ne neg or pow radd rand_like rdiv reciprocal relu rmul round rsqrt rsub "
    "rtruediv sigmoid silu softplus sqrt square sub subtract tanh true_divide truediv type where xor".split()
)
SHAPED = frozenset(
    "chunk diagonal expand flatten flip gather get getitem index_select movedim narrow permute repeat "
    "repeat_interleave reshape roll select split squeeze swapaxes swapdims t take_along_dim tile transpose "
    "unbind unflatten unsqueeze view".split()
)
MADE_LIKE = frozenset(
    "empty_like full_like new_empty new_full new_ones new_tensor new_zeros ones_like zeros_like".split()
)
SAME = frozenset(
    "index_add index_copy index_fill masked_scatter scatter scatter_add setitem to type_as".split()
)
PRODUCTS = frozenset("baddbmm bmm einsum linear matmul mm rmatmul addmm".split())
LARGEST = frozenset("amax argmax logsumexp max".split())


class Absent(TorchFunctionMode):
    """Inside this context, places of tensors that are marked as gone take no part in any routing.

    Args:
        seeds: tensors with the places that are gone, bool, of the tensor's shape; beside those that are
            `lacking` some by themselves.
    """

    def __init__(self, seeds: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        super().__init__()
        self._gone = WeakIdKeyDictionary()
        for tensor, gone in seeds:
            self._mark(tensor, gone)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(self._lacks(tensor) for tensor in _tensors((*args, *kwargs.values()))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        rule = _rule(name)
        if rule is not None:
            return rule(self, func, args, kwargs)
        out = func(*args, **kwargs)
        if name not in MADE_LIKE and any(True for _ in _tensors((out,))):
            raise RebuildError(
                f"the masked view cannot follow removed experts through '{name}'",
                hint="leave this model's experts out, or report the family",
            )
        return out

    def gone(self, tensor: Tensor) -> Tensor:
        """Places of `tensor` that are gone; all False where it lacks nothing."""
        if tensor in self._gone:
            return self._gone[tensor]
        if hasattr(tensor, _GONE):
            return getattr(tensor, _GONE)
        return torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)

    def _lacks(self, tensor: Tensor) -> bool:
        return tensor in self._gone or hasattr(tensor, _GONE)

    def _mark(self, tensor: object, gone: Tensor) -> None:
        if isinstance(tensor, Tensor) and bool(gone.any()):
            self._gone[tensor] = gone

    def _filled(self, x: Tensor, value: float) -> Tensor:
        """`x` with `value` where it is gone; infinities become the least or largest integer."""
        if not self._lacks(x):
            return x
        if not x.is_floating_point() and value in (-torch.inf, torch.inf):
            wide = x.to(torch.int64) if x.dtype == torch.bool else x
            limit = torch.iinfo(wide.dtype)
            return wide.masked_fill(self.gone(x), limit.min if value < 0 else limit.max)
        return x.masked_fill(self.gone(x), value)

    def elementwise(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Gone where any operand is."""
        out = func(*args, **kwargs)
        if isinstance(out, Tensor):
            gone = torch.zeros((), dtype=torch.bool, device=out.device)
            for tensor in _tensors((*args, *kwargs.values())):
                gone = gone | self.gone(tensor)
            self._mark(out, gone.expand(out.shape))
        return out

    def shaped(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The same places, moved."""
        out = func(*args, **kwargs)
        moved = func(self.gone(args[0]), *args[1:], **kwargs)
        for tensor, gone in zip(_tensors((out,)), _tensors((moved,)), strict=True):
            self._mark(tensor, gone)
        return out

    def joined(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Of several tensors one."""
        out = func(*args, **kwargs)
        self._mark(out, func([self.gone(part) for part in args[0]], *args[1:], **kwargs))
        return out

    def same(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Converted, or written into: it lacks what it lacked, since no chosen expert is gone."""
        out = func(*args, **kwargs)
        self._mark(out, self.gone(args[0]))
        return out

    def product(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Gone where every term of the sum is."""
        name = func.__name__.strip("_")
        given = [self._filled(a, 0) if isinstance(a, Tensor) else a for a in args]
        named = {k: self._filled(v, 0) if isinstance(v, Tensor) else v for k, v in kwargs.items()}
        there = [(~self.gone(a)).float() if isinstance(a, Tensor) else a for a in args]
        if name == "linear":
            factors = there[:2] if len(there) > 1 else [there[0], (~self.gone(kwargs["weight"])).float()]
            terms = func(*factors)
        elif name in ("addmm", "baddbmm"):
            terms = torch.matmul(there[1], there[2])
        else:
            terms = func(*there)
        out = func(*given, **named)
        self._mark(out, terms == 0)
        return out

    def softmax(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """No weight for what is gone."""
        gone = self.gone(args[0])
        out = func(self._filled(args[0], -torch.inf), *args[1:], **kwargs)
        if not func.__name__.startswith("log"):
            out = out.masked_fill(gone, 0)
        self._mark(out, gone)
        return out

    def summed(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Sums, running or not, of what is there."""
        out = func(self._filled(args[0], 0), *args[1:], **kwargs)
        self._mark(out, self._all_gone(args, kwargs, out))
        return out

    def averaged(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Means over what is there."""
        share = func((~self.gone(args[0])).to(args[0].dtype), *args[1:], **kwargs)
        out = func(self._filled(args[0], 0), *args[1:], **kwargs) / share
        self._mark(out, share == 0)
        return out

    def largest(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The largest of what is there."""
        out = func(self._filled(args[0], -torch.inf), *args[1:], **kwargs)
        for tensor in _tensors((out,)):
            self._mark(tensor, self._all_gone(args, kwargs, tensor))
        return out

    def chosen(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The k largest of what is there, of all there is where that is fewer."""
        x, k, dim, rest = _topk_arguments(*args, **kwargs)
        gone = self.gone(x)
        left = (~gone).sum(dim)
        out = func(self._filled(x, -torch.inf), min(k, int(left[left > 0].min())), dim, **rest)
        for tensor in out:
            self._mark(tensor, gone.all(dim, keepdim=True).expand(tensor.shape))
        return out

    def sorted(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What is gone comes last."""
        descending = bool(kwargs.get("descending", args[2] if len(args) > 2 else False))
        out = func(self._filled(args[0], -torch.inf if descending else torch.inf), *args[1:], **kwargs)
        if not isinstance(out, Tensor):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            self._mark(out[0], self.gone(args[0]).gather(dim, out[1]))
        return out

    def _all_gone(self, args: Any, kwargs: Any, out: Tensor) -> Tensor:
        """Places of a reduction where nothing was there."""
        gone = self.gone(args[0])
        if out.shape == gone.shape:
            return gone
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        if dims is None or isinstance(dims, Tensor):
            return gone.all()
        for dim in (dims,) if isinstance(dims, int) else dims:
            gone = gone.all(dim, keepdim=True)
        return gone.reshape(out.shape)


Rule = Callable[[Absent, Callable[..., Any], Any, Any], Any]

_NAMED: dict[str, Rule] = {
    "cat": Absent.joined,
    "concat": Absent.joined,
    "stack": Absent.joined,
    "softmax": Absent.softmax,
    "log_softmax": Absent.softmax,
    "sum": Absent.summed,
    "cumsum": Absent.summed,
    "mean": Absent.averaged,
    "topk": Absent.chosen,
    "sort": Absent.sorted,
    "argsort": Absent.sorted,
}
_FAMILIES: tuple[tuple[frozenset[str], Rule], ...] = (
    (ELEMENTWISE, Absent.elementwise),
    (SHAPED, Absent.shaped),
    (SAME, Absent.same),
    (PRODUCTS, Absent.product),
    (LARGEST, Absent.largest),
)


def _rule(name: str) -> Rule | None:
    """What to do about the function called `name`, None where nothing is known of it."""
    return _NAMED.get(name) or next((rule for names, rule in _FAMILIES if name in names), None)


def _topk_arguments(input: Tensor, k: int, dim: int = -1, **rest: Any) -> tuple[Tensor, int, int, Any]:
    return input, k, dim, rest


def _tensors(values: Sequence[object]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
