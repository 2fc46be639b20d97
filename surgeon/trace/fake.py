"""A module whose parameters have shapes but no storage, and that still runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

__all__ = ["storage_less"]


@contextlib.contextmanager
def storage_less(module: nn.Module) -> Iterator[None]:
    """While open, every parameter (and meta buffer) of `module` is a FakeTensor that reports the CPU.

    Tied parameters stay one tensor. Real buffers stay real: their values steer the forward pass.
    ``Module.to`` does nothing meanwhile, because swapping FakeTensors raises. On leaving, the module
    has its own tensors and modes back.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    originals: list[tuple[MutableMapping[str, Any], str, torch.Tensor]] = []
    fakes: dict[int, torch.Tensor] = {}
    modes = {child: child.training for child in module.modules()}
    apply = nn.Module._apply
    try:
        for holder, name, tensor in _held(module):
            originals.append((holder, name, tensor))
            if id(tensor) not in fakes:
                fakes[id(tensor)] = _fake(tensor, mode)
            holder[name] = fakes[id(tensor)]
        module.eval()
        nn.Module._apply = lambda self, fn, recurse=True: self  # type: ignore[method-assign]
        yield
    finally:
        nn.Module._apply = apply  # type: ignore[method-assign]
        for holder, name, tensor in originals:
            holder[name] = tensor
        for child, training in modes.items():
            child.training = training


def _held(module: nn.Module) -> list[tuple[MutableMapping[str, Any], str, torch.Tensor]]:
    """Every parameter, and every buffer without storage, with the dict that holds it."""
    found: list[tuple[MutableMapping[str, Any], str, torch.Tensor]] = []
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                found.append((cast("MutableMapping[str, Any]", child._parameters), name, parameter))
        for name, buffer in child._buffers.items():
            if buffer is not None and buffer.is_meta:
                found.append((cast("MutableMapping[str, Any]", child._buffers), name, buffer))
    return found


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """The same shape, strides and dtype, without storage, on a device that calls itself the CPU."""
    like = tensor.detach()
    if not like.is_meta:
        like = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="meta")
    fake = FakeTensor(mode, like, torch.device("cpu"))
    return nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake
