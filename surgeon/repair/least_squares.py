"""Ridge least squares anchored at current weights, from Gram matrices, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from surgeon.repair.cholesky import solve_in_place

__all__ = ["anchored", "ridge_of", "ridge_step"]


def ridge_of(gram: Tensor, ridge: float, constant: bool = False) -> Tensor:
    """Diagonal of the ridge, [features]: `ridge` times the mean diagonal of `gram`, 0 for the constant."""
    diagonal = gram.diagonal()[:-1] if constant else gram.diagonal()
    strength = diagonal.mean().mul(ridge).expand(len(diagonal))
    return torch.cat([strength, strength.new_zeros(1)]) if constant else strength.clone()


def ridge_step(gram: Tensor, error: Tensor, ridge: float, constant: bool = False) -> Tensor:
    """``argmin_D |A D - E|^2 / n + λ |D|^2``, as ``(G + λI)^-1 A^T E / n``; 0 where nothing was measured.

    Args:
        gram: ``G = A^T A / n`` [features, features] float64; used up.
        error: ``A^T E / n`` [features, outputs] float64; used up.
        ridge: λ relative to the mean diagonal of `gram`.
        constant: the last feature is 1 throughout; its row is the bias, and is not held back.

    Returns:
        D, [features, outputs] float64.
    """
    strength = ridge_of(gram, ridge, constant)
    gram.diagonal().add_(strength)
    alive = gram.diagonal() > 0
    if bool(alive.all()):
        return _solve(gram, error, ridge)
    step = torch.zeros_like(error)
    if bool(alive.any()):
        step[alive] = _solve(gram[alive][:, alive], error[alive], ridge)
    return step


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
    error = cross.double() - g @ w0
    return w0 + ridge_step(g.clone() if g is gram else g, error, ridge, constant)


def _solve(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solution of a symmetric system, which a ridge makes positive definite; both are used up."""
    if ridge == 0:
        return torch.linalg.lstsq(matrix, right, driver="gelsd").solution
    return solve_in_place(matrix, right)
