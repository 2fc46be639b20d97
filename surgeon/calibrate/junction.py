"""Junction: where what a projection gives joins the residual stream, found by following it through adds.

Behind a projection come, in most models, a scale by a number and one add or several; the last sum before
anything else reads it is the state of the stream there, and it is linear in what the projection gives.
Where something else reads it first (a norm behind the projection), the projection's own output is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Junction"]

_aten = torch.ops.aten

_ADDS = (_aten.add.Tensor, _aten.add_.Tensor)
_SCALES = (_aten.mul.Tensor, _aten.mul.Scalar, _aten.mul_.Tensor, _aten.div.Tensor)
_VIEWS = (
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.reshape.default,
    _aten.unsqueeze.default,
    _aten.squeeze.default,
    _aten.squeeze.dim,
    _aten.detach.default,
    _aten.alias.default,
)


class Junction:
    """Watches the module of a projection, inside its Block: `state` is the stream behind it.

    `own` is what the projection gave, of what it was `given`; ``state = stream + scale · own`` where
    `joined`, else ``state = own``.
    """

    def __init__(self, part: nn.Module, block: nn.Module) -> None:
        self.part = part
        self.block = block
        self.given: Tensor | None = None
        self.own: Tensor | None = None
        self.state: Tensor | None = None
        self.scale = 1.0
        self.joined = False
        self._mode: _Follow | None = None
        self._handles: tuple[Any, ...] = ()

    def __enter__(self) -> Junction:
        self._handles = (
            self.part.register_forward_hook(self._after),
            self.block.register_forward_hook(self._close, prepend=True, always_call=True),
        )
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _close(self, block: nn.Module, inputs: Any, output: Any) -> None:
        """End following while the mode is still the innermost one."""
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None

    def _after(self, part: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and self._mode is None:
            self.given = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
            self.own = self.state = output.detach().clone()
            self.scale, self.joined = 1.0, False
            self._mode = _Follow(self, output)
            self._mode.__enter__()


class _Follow(TorchDispatchMode):
    """Follows one tensor through views, scales and adds until anything else reads it."""

    def __init__(self, junction: Junction, start: Tensor) -> None:
        super().__init__()
        self.junction = junction
        self.current: Tensor | None = start
        self.scale = 1.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.current is not None and self._reads(args):
            self._step(func, args, kwargs or {}, out)
        return out

    def _reads(self, args: Any) -> bool:
        return any(self._is_current(arg) for arg in _tensors(args))

    def _is_current(self, tensor: Tensor) -> bool:
        current = self.current
        return (
            current is not None
            and tensor.untyped_storage().data_ptr() == current.untyped_storage().data_ptr()
            and tensor.numel() == current.numel()
        )

    def _step(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        if func in _VIEWS:
            return
        if func in _SCALES and isinstance(args[1], int | float) and not self.junction.joined:
            self.scale *= args[1] if func is not _aten.div.Tensor else 1 / args[1]
            self.current = out
            return
        if func in _ADDS and _added(args) and kwargs.get("alpha", 1) == 1:
            self.junction.state = out.detach().clone()
            self.junction.scale, self.junction.joined = self.scale, True
            self.current = out
            return
        self.current = None


def _added(args: Any) -> bool:
    """Whether two different states of one shape are added."""
    both = [arg for arg in args[:2] if isinstance(arg, Tensor)]
    return len(both) == 2 and both[0].numel() == both[1].numel()


def _tensors(args: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, tuple | list):
            found += _tensors(arg)
    return found
