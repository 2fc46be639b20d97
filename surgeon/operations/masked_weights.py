"""Weights as earlier steps left them: assigned values in place, what was removed set to zero.

A TensorSource over another one, so that a criterion scores what is still there without knowing of any
plan. Not here: a model that runs that way (`surgeon.rebuild.masked`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from surgeon.graph import Graph
from surgeon.graph.layout import Positions
from surgeon.plan import Plan, cuts_of
from surgeon.rebuild.tensors import Numbers, TensorSource, as_numbers, numbers_of, rows_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MaskedWeights"]


class MaskedWeights:
    """`source` with `plan` in force, all shapes as they were."""

    def __init__(self, source: TensorSource, plan: Plan, graph: Graph) -> None:
        self._source = source
        self._rows = rows_of(source)
        self._numbers = numbers_of(source)
        self._values: dict[str, Tensor] = dict(plan.values)  # type: ignore[arg-type]  # plans know no torch
        self._cuts = cuts_of(plan, graph)

    def names(self) -> tuple[str, ...]:
        """Names of the source."""
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape in the source."""
        return self._source.shape(name)

    def get(self, name: str) -> Tensor:
        """The tensor in force; the source's own where the plan does not touch it."""
        value = self._values.get(name)
        return self._silenced(self._source.get(name) if value is None else value, name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Consecutive entries of the first dim of the tensor in force."""
        value = self._values.get(name)
        read = self._rows(name, start, stop) if value is None else value[start:stop]
        return self._silenced(read, name, start)

    def numbers(self, name: str, starts: range) -> Iterator[Numbers]:
        """Runs of such entries as numbers."""
        value, cuts = self._values.get(name), self._cuts.get(name, {})
        if value is None:
            runs = self._numbers(name, starts)
        else:
            runs = (as_numbers(value[start : start + starts.step]) for start in starts)
        for start, found in zip(starts, runs, strict=True):
            silenced = found.copy() if cuts else found
            for dim in cuts:
                np.moveaxis(silenced, dim, 0)[self._removed(name, dim, start, found.shape[dim])] = 0
            yield silenced

    def _silenced(self, tensor: Tensor, name: str, start: int = 0) -> Tensor:
        """`tensor`, the rows of `name` from `start` on, with zeros for what is removed of it."""
        cuts = self._cuts.get(name, {})
        if cuts:
            import torch  # whose tensor this is

            for dim in cuts:
                removed = torch.from_numpy(self._removed(name, dim, start, tensor.shape[dim]))
                tensor = tensor.index_fill(dim, removed.to(tensor.device), 0)
        return tensor

    def _removed(self, name: str, dim: int, start: int, size: int) -> Positions:
        """What is removed of a dim of `size`, of a tensor from row `start` on."""
        first = start if dim == 0 else 0
        return np.setdiff1d(np.arange(first, first + size), self._cuts[name][dim]) - first
