"""A module whose parameters have shapes but no storage, and that still runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

__all__ = ["storage_less"]


def _fake_of(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    with torch.no_grad():
        like = tensor.detach()
        meta = (
            like
            if like.device.type == "meta"
            else torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="meta")
        )
        return FakeTensor(mode, meta, torch.device("cpu"))


@contextlib.contextmanager
def storage_less(module: nn.Module) -> Iterator[dict[int, list[str]]]:
    """While open, every parameter (and meta buffer) of `module` is a FakeTensor that reports the CPU.

    Tied parameters stay one tensor. Small real buffers stay real: their values steer the forward
    pass. ``Module.to`` does nothing meanwhile, because swapping FakeTensors raises. On leaving, the
    module has its own tensors back. Yields all names of each tensor, by its id.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    originals: list[tuple[dict, str, torch.Tensor]] = []
    fakes: dict[int, torch.Tensor] = {}
    names: dict[int, list[str]] = {}
    was_training = module.training
    apply = nn.Module._apply
    try:
        for path, child in module.named_modules(remove_duplicate=True):
            for holder, is_buffer in ((child._parameters, False), (child._buffers, True)):
                for name, tensor in list(holder.items()):
                    if tensor is None:
                        continue
                    originals.append((holder, name, tensor))
                    if id(tensor) not in fakes:
                        fakes[id(tensor)] = (
                            tensor if is_buffer and _small_real(tensor) else _fake(tensor, mode)
                        )
                    holder[name] = fakes[id(tensor)]
                    names.setdefault(id(holder[name]), []).append(f"{path}.{name}" if path else name)
        module.eval()
        nn.Module._apply = lambda self, fn, recurse=True: self  # type: ignore[method-assign]
        yield names
    finally:
        nn.Module._apply = apply  # type: ignore[method-assign]
        for holder, name, tensor in originals:
            holder[name] = tensor
        module.train(was_training)


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    fake = _fake_of(tensor, mode)
    return nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake


def _small_real(tensor: torch.Tensor) -> bool:
    return tensor.device.type != "meta"
