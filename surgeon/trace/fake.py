"""A module whose parameters have shapes but no storage, and that still runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, MutableMapping
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

__all__ = ["storage_less"]

_log = logging.getLogger("torch._subclasses.fake_tensor")


@contextlib.contextmanager
def storage_less(module: nn.Module) -> Iterator[None]:
    """While open, every parameter (and meta buffer) of `module` is a FakeTensor that reports the CPU.

    Tied parameters stay one tensor. Real buffers become copies, for their values steer the forward
    pass and it may write into them. ``Module.to`` does nothing meanwhile, because swapping FakeTensors
    raises, and torch does not log what FakeTensors refuse. On leaving, the module has its own tensors
    and modes back.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    originals: list[tuple[MutableMapping[str, Any], str, torch.Tensor]] = []
    fakes: dict[int, torch.Tensor] = {}
    modes = {child: child.training for child in module.modules()}
    apply = nn.Module._apply
    level = _log.level
    try:
        _log.setLevel(logging.CRITICAL)
        for holder, name, tensor in _held(module):
            originals.append((holder, name, tensor))
            if id(tensor) not in fakes:
                fakes[id(tensor)] = _stand_in(tensor, mode)
            holder[name] = fakes[id(tensor)]
        module.eval()
        nn.Module._apply = lambda self, fn, recurse=True: self  # type: ignore[method-assign]
        yield
    finally:
        _log.setLevel(level)
        nn.Module._apply = apply  # type: ignore[method-assign]
        for holder, name, tensor in originals:
            holder[name] = tensor
        for child, training in modes.items():
            child.training = training


def _held(module: nn.Module) -> list[tuple[MutableMapping[str, Any], str, torch.Tensor]]:
    """Every parameter and buffer, with the dict that holds it."""
    found: list[tuple[MutableMapping[str, Any], str, torch.Tensor]] = []
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                found.append((cast("MutableMapping[str, Any]", child._parameters), name, parameter))
        for name, buffer in child._buffers.items():
            if buffer is not None:
                found.append((cast("MutableMapping[str, Any]", child._buffers), name, buffer))
    return found


def _stand_in(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """The same shape, strides and dtype, without storage, on a device that calls itself the CPU."""
    like = tensor.detach()
    if not like.is_meta and not isinstance(tensor, nn.Parameter):
        return like.cpu().clone()
    if not like.is_meta:
        like = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="meta")
    fake = FakeTensor(mode, like, torch.device("cpu"))
    return nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake
