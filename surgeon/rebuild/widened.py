"""Widened: a source of tensors in another type, still read only when they are used."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from surgeon.rebuild.tensors import TensorSource
from surgeon.rebuild.unread import Unread

__all__ = ["Widened"]


class Widened:
    """The floating-point tensors of `source` in `dtype`, the others as they are."""

    def __init__(self, source: TensorSource, dtype: torch.dtype) -> None:
        self._source = source
        self._dtype = dtype

    def names(self) -> tuple[str, ...]:
        """Names of the source."""
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape in the source."""
        return self._source.shape(name)

    def get(self, name: str) -> Tensor:
        """One tensor, described where the source only describes it."""
        found = self._source.get(name)
        if not found.is_floating_point():
            return cast(Tensor, found.lazy) if isinstance(found, Unread) else found
        return (
            cast(Tensor, found.lazy.to(self._dtype)) if isinstance(found, Unread) else found.to(self._dtype)
        )
