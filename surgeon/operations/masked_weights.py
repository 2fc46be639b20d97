"""Weights as earlier steps left them: assigned values in place, what was removed set to zero.

A TensorSource over another one, so that a criterion scores what is still there without knowing of any
plan. Not here: a model that runs that way (`surgeon.rebuild.masked`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from surgeon.graph import Graph
from surgeon.plan import Plan, cuts_of
from surgeon.rebuild.tensors import TensorSource, rows_of

__all__ = ["MaskedWeights"]


class MaskedWeights:
    """`source` with `plan` in force, all shapes as they were."""

    def __init__(self, source: TensorSource, plan: Plan, graph: Graph) -> None:
        self._source = source
        self._rows = rows_of(source)
        self._values = plan.values
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
        return self._silenced(value if isinstance(value, Tensor) else self._source.get(name), name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Consecutive entries of the first dim of the tensor in force."""
        value = self._values.get(name)
        read = value[start:stop] if isinstance(value, Tensor) else self._rows(name, start, stop)
        return self._silenced(read, name, start)

    def _silenced(self, tensor: Tensor, name: str, start: int = 0) -> Tensor:
        """`tensor`, the rows of `name` from `start` on, with zeros for what is removed of it."""
        for dim, kept in self._cuts.get(name, {}).items():
            first = start if dim == 0 else 0
            removed = np.setdiff1d(np.arange(first, first + tensor.shape[dim]), kept) - first
            tensor = tensor.index_fill(dim, torch.from_numpy(removed).to(tensor.device), 0)
        return tensor
