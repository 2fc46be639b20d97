"""Ridge least squares anchored at current weights, from Gram matrices, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["anchored", "ridge_of"]


def ridge_of(gram: Tensor, ridge: float, constant: bool = False) -> Tensor:
    """Diagonal of the ridge, [features]: `ridge` times the mean diagonal of `gram`, 0 for the constant."""
    diagonal = gram.diagonal()[:-1] if constant else gram.diagonal()
    strength = diagonal.mean().mul(ridge).expand(len(diagonal))
    return torch.cat([strength, strength.new_zeros(1)]) if constant else strength.clone()


def anchored(gram: Tensor, cross: Tensor, anchor: Tensor, ridge: float, constant: bool = False) -> Tensor:
    """``argmin_W |A W - R|^2 / n + λ |W - W0|^2``, as ``W0 + (G + λI)^-1 (C - G W0)``.

    Where nothing was measured, or a feature never moved, the anchor stays.

    Args:
        gram: ``G = A^T A / n`` [features, features].
        cross: ``C = A^T R / n`` [features, outputs].
        anchor: ``W0`` [features, outputs].
        ridge: λ relative to the mean diagonal of `gram`.
        constant: the last feature is 1 throughout; its row is the bias, and is not held back.

    Returns:
        The weights, [features, outputs] float64.
    """
    g, w0 = gram.double(), anchor.double()
    strength = ridge_of(g, ridge, constant)
    alive = g.diagonal() + strength > 0
    step = torch.zeros_like(w0)
    if alive.any():
        inner = (g + strength.diag())[alive][:, alive]
        gap = (cross.double() - g @ w0)[alive]
        step[alive] = (
            torch.linalg.lstsq(inner, gap, driver="gelsd").solution if ridge == 0 else _solve(inner, gap)
        )
    return w0 + step


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solution of a symmetric positive definite system."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.linalg.solve(matrix, right) if bool(failed) else torch.cholesky_solve(right, factor)
