"""Sums over all of a tensor but one dim, in float64, without a float64 copy of the tensor."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sum_to_dim", "widened"]


def widened(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or as it is where it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def sum_to_dim(tensor: Tensor, dim: int) -> Tensor:
    """Sum over every dim but `dim`, accumulated in float64; [size of dim]."""
    others = tuple(other for other in range(tensor.ndim) if other != dim)
    return tensor.sum(others, dtype=torch.float64) if others else tensor.to(torch.float64)
