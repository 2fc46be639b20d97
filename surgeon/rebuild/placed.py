"""Tensors in the place of a module's own, for a time: who calls the module meanwhile computes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["placed", "tensor_at"]


def tensor_at(module: nn.Module, name: str) -> Tensor:
    """The tensor that bears `name` in `module` now: its own, or what stands in the place of that."""
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)


@contextmanager
def placed(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """`tensors` by their names in `module`, which is afterwards as it was.

    What somebody else put back meanwhile, whose own place this was, stays.
    """
    before: list[tuple[dict[str, Tensor | None], str, Tensor | None, Tensor]] = []
    try:
        for name, tensor in tensors.items():
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            held: dict = owner._parameters if leaf in owner._parameters else owner._buffers
            before.append((held, leaf, held[leaf], tensor))
            held[leaf] = tensor
        yield
    finally:
        for held, leaf, earlier, tensor in reversed(before):
            if held[leaf] is tensor:
                held[leaf] = earlier
