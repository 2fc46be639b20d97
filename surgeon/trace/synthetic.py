"""Plausible concrete values for integer and boolean results that depend on unknown numbers.

Python control flow, masks and routing need real integers while the weights have no storage. The
values made here are never read as constants: whatever derives from them is tainted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["INTEGRAL", "filled", "synthetic_scalar", "synthetic_values"]

INTEGRAL = frozenset({torch.bool, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})
_FILLED_WITH = {"new_full": 2, "full_like": 1, "new_ones": 0, "ones_like": 0}
"""Where the number stands among the arguments; 0 for one."""
_FALSE_OPS = frozenset({"isnan", "isinf", "any"})
_RANKING_OPS = frozenset({"topk", "argmax", "argmin", "max", "min", "multinomial"})


def filled(op: str, args: Sequence[Any]) -> float | None:
    """The number that `op` fills a new tensor with, whatever is in the one it is like; or None."""
    place = _FILLED_WITH.get(op)
    return None if place is None else args[place] if place else 1


def synthetic_values(op: str, like: torch.Tensor, source: torch.Tensor | None) -> torch.Tensor:
    """A real tensor of the shape and dtype of `like`, for the result of `op` over `source`.

    Rankings spread over all indices of the ranked dim, sorts are the identity, comparisons hold,
    ``isnan`` and its kin do not.
    """
    if like.dtype == torch.bool:
        return torch.full(like.shape, op not in _FALSE_OPS, dtype=torch.bool)
    if source is not None and source.dim() and like.dim():
        if op == "sort":
            return torch.arange(like.shape[-1]).expand(like.shape).clone().to(like.dtype)
        if op in _RANKING_OPS:
            spread = torch.arange(like.numel()) % max(source.shape[-1], 1)
            return spread.reshape(like.shape).to(like.dtype)
    return torch.zeros(like.shape, dtype=like.dtype)


def synthetic_scalar(tensor: torch.Tensor) -> float | int | bool:
    """What ``item()`` of an unknown tensor returns."""
    if tensor.dtype == torch.bool:
        return False
    return 1.0 if tensor.dtype.is_floating_point else 1
