"""Record the ATen ops of one eager forward pass over parameters without storage.

A `Recorder` is a ``TorchDispatchMode``: it runs each op on FakeTensors (shapes only) or real tensors
(inputs, masks, positions, buffers), replaces unknown integers by synthetic ones, and writes down an
`Event`. Python control flow is no obstacle. Not here: what the ops mean for the axes (`propagate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from surgeon.trace.synthetic import INTEGRAL, filled, synthetic_scalar, synthetic_values

__all__ = ["Event", "Recorder", "Value", "values_in"]

_CONCRETE_LIMIT = 4_000_000
"""Integer results above this many elements stay unknown; no index tensor of a short input is so large."""

_DATA_SIZED = frozenset(
    {
        "nonzero",
        "unique",
        "_unique2",
        "unique_consecutive",
        "masked_select",
        "bincount",
        "histc",
        "repeat_interleave",
    }
)
_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"})


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the recording, by number."""

    id: int


@dataclass(frozen=True, slots=True)
class Event:
    """One op: name without overload, arguments with tensors as `Value`, outputs, module path."""

    index: int
    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    module: str

    @property
    def inputs(self) -> list[Value]:
        """Every tensor argument, in order."""
        return values_in(self.args) + values_in(tuple(self.kwargs.values()))

    @property
    def outputs(self) -> list[Value]:
        """Every tensor result, in order."""
        return values_in(self.out)


def values_in(nested: Any) -> list[Value]:
    """All Values in nested tuples and lists."""
    if isinstance(nested, Value):
        return [nested]
    if isinstance(nested, (tuple, list)):
        return [value for item in nested for value in values_in(item)]
    return []


class Recorder(TorchDispatchMode):
    """Runs and writes down every op; `tensors[i]` is the tensor of ``Value(i)``, kept alive.

    `path` holds the running modules, outermost first; `failed` is the one whose forward raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.tensors: list[torch.Tensor] = []
        self.path: list[str] = []
        self.failed: str | None = None
        self._ids: dict[int, int] = {}

    def value(self, tensor: torch.Tensor) -> Value:
        """The number of `tensor`, given on first sight."""
        key = id(tensor)
        if key not in self._ids:
            self._ids[key] = len(self.tensors)
            self.tensors.append(tensor)
        return Value(self._ids[key])

    def known(self, tensor: torch.Tensor) -> Value | None:
        """The number of `tensor`, or None where no op has seen it."""
        number = self._ids.get(id(tensor))
        return None if number is None else Value(number)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if name in ("_local_scalar_dense", "is_nonzero", "equal") and _any_fake(args):
            self._write(func, name, args, kwargs, ())
            return True if name == "equal" else synthetic_scalar(args[0])
        if _writes_unknown_into_known(name, args, kwargs):
            self._write(func, name, args, kwargs, args[0])
            return args[0]
        out = func(*_runnable(name, args), **kwargs)
        if not (name.endswith("_") and not name.endswith("__")):
            out = _concrete(name, out, args)
        self._write(func, name, args, kwargs, out)
        return out

    def note(self, name: str, tensor: torch.Tensor) -> None:
        """Write down that `tensor` leaves for Python by the method `name`."""
        self._write(None, name, (tensor,), {}, ())

    def _write(self, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> None:
        self.events.append(
            Event(
                len(self.events),
                func,
                name,
                tuple(self._encode(arg) for arg in args),
                {key: self._encode(arg) for key, arg in kwargs.items()},
                self._encode(out),
                self.path[-1] if self.path else "",
            )
        )

    def _encode(self, thing: Any) -> Any:
        if isinstance(thing, torch.Tensor):
            return self.value(thing)
        if isinstance(thing, (list, tuple)):
            return tuple(self._encode(item) for item in thing)
        return thing


def _any_fake(nested: Any) -> bool:
    if isinstance(nested, FakeTensor):
        return True
    if isinstance(nested, (tuple, list)):
        return any(_any_fake(item) for item in nested)
    return False


def _writes_unknown_into_known(name: str, args: Any, kwargs: Any) -> bool:
    """An in-place write of unknown data into a real tensor: written down, not computed."""
    in_place = name.endswith("_") and not name.endswith("__")
    if not in_place or not args or not isinstance(args[0], torch.Tensor) or isinstance(args[0], FakeTensor):
        return False
    return _any_fake(args[1:]) or _any_fake(tuple(kwargs.values()))


def _runnable(name: str, args: Any) -> Any:
    """Arguments that FakeTensor can run: its data-sized ops and boolean masks get real integers."""
    if name in _DATA_SIZED and _any_fake(args):
        return tuple(
            synthetic_values(name, arg, None)
            if isinstance(arg, FakeTensor) and arg.dtype in INTEGRAL
            else arg
            for arg in args
        )
    if name in _INDEXING and len(args) > 1 and isinstance(args[1], (list, tuple)) and _any_fake(args):
        index: list[Any] = []
        for item in args[1]:
            mask = (
                isinstance(item, torch.Tensor)
                and not isinstance(item, FakeTensor)
                and item.dtype == torch.bool
            )
            index.extend(item.nonzero(as_tuple=True) if mask else (item,))
        return (args[0], index, *args[2:])
    return args


def _concrete(name: str, out: Any, args: Any) -> Any:
    """`out` with unknown integer and boolean tensors replaced by synthetic ones."""
    if isinstance(out, (list, tuple)):
        made = [_concrete(name, item, args) for item in out]
        if all(new is old for new, old in zip(made, out, strict=True)):
            return out
        return made if isinstance(out, list) else tuple(made)
    if isinstance(out, FakeTensor) and out.dtype in INTEGRAL and out.numel() < _CONCRETE_LIMIT:
        number = filled(name, args)
        if isinstance(number, (bool, int, float)):
            return torch.full(out.shape, number, dtype=out.dtype)
        source = args[0] if args and isinstance(args[0], torch.Tensor) else None
        return synthetic_values(name, out, source)
    return out
