"""TensorSource: named tensors, wherever they lie; a module in memory is one.

Why: there is one rebuild and one set of criteria for a module in memory and for shards on disk. Not
here: shards (`surgeon.io`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from surgeon.errors import RebuildError
from surgeon.registry import nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "ModuleSource",
    "NumberSource",
    "Numbers",
    "RowSource",
    "TensorSource",
    "as_numbers",
    "numbers_of",
    "rows_of",
    "stored_tensors",
]

Numbers = npt.NDArray[np.floating]
FLOAT32 = 4
"""Bytes of an element."""


class TensorSource(Protocol):
    """Named tensors of a model, under the names that they have in the module."""

    def names(self) -> tuple[str, ...]:
        """All names, in the module's order; a tied tensor appears under each of its names."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        ...

    def get(self, name: str) -> Tensor:
        """One tensor; not to be written to."""
        ...


@runtime_checkable
class RowSource(TensorSource, Protocol):
    """Tensors that need not be read whole."""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Consecutive entries of the first dim of one tensor; not to be written to."""
        ...


def rows_of(source: TensorSource) -> Callable[[str, int, int], Tensor]:
    """What gives consecutive entries of the first dim of a tensor, where possible without reading more."""
    if isinstance(source, RowSource):
        return source.rows
    return lambda name, start, stop: source.get(name)[start:stop]


@runtime_checkable
class NumberSource(TensorSource, Protocol):
    """Tensors whose elements can be had as numbers, without torch."""

    def numbers(self, name: str, starts: range) -> Iterator[Numbers]:
        """Runs of entries of the first dim of one tensor, in float32 or float64; not to be written to.

        One from each of `starts`, as long as their step. Each counts until the next one is asked for, which
        may lie in the same memory: what is fresh for every run costs more to get than to fill.
        """
        ...


def numbers_of(source: TensorSource) -> Callable[[str, range], Iterator[Numbers]]:
    """What gives runs of entries of the first dim of a tensor as numbers, each exactly."""
    if isinstance(source, NumberSource):
        return source.numbers
    read = rows_of(source)

    def numbers(name: str, starts: range) -> Iterator[Numbers]:
        size = source.shape(name)[0]
        return (as_numbers(read(name, start, min(start + starts.step, size))) for start in starts)

    return numbers


def as_numbers(tensor: Tensor) -> Numbers:
    """The elements of a tensor in float32 or float64, each exactly."""
    narrow = tensor.is_floating_point() and tensor.element_size() <= FLOAT32
    return (tensor.float() if narrow else tensor.double()).detach().cpu().numpy()


class ModuleSource:
    """The parameters and stored buffers of a module in memory."""

    def __init__(self, module: nn.Module) -> None:
        self._tensors = stored_tensors(module)

    def names(self) -> tuple[str, ...]:
        """All names, aliases included."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self._find(name).shape)

    def get(self, name: str) -> Tensor:
        """The module's own tensor, outside of autograd."""
        return self._find(name).detach()

    def _find(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise RebuildError(f"the module has no tensor '{name}'", hint=nearest(name, self.names()))
        return self._tensors[name]


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and stored buffer of `module` itself, under each of its names."""
    stored = module.state_dict(keep_vars=True)
    named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    buffers = module.named_buffers(remove_duplicate=False)
    return named | {name: buffer for name, buffer in buffers if name in stored}
