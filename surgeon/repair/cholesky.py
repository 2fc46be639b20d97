"""Symmetric systems of equations solved where they lie: a wide Gram matrix exists once, not three times.

Blocked Cholesky factorisation in the lower triangle of the matrix itself. Not here: what is solved for
(`least_squares`).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PANEL", "solve_in_place"]

PANEL = 1024
"""Rows of one block: what is held beside the matrix is a panel, a block of columns."""


def solve_in_place(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix^-1 right`` of a symmetric positive definite `matrix`, which is used up, as `right` is.

    Where rounding leaves it not positive definite, it is solved by elimination.

    Args:
        matrix: [n, n].
        right: [n, m], of the same dtype.
    """
    starts = range(0, len(matrix), PANEL)
    diagonal = [matrix[at : at + PANEL, at : at + PANEL].clone() for at in starts]
    for at in starts:
        if not _eliminate(matrix, at):
            return torch.linalg.solve(_restored(matrix, diagonal), right)
    for at in starts:
        here = slice(at, at + PANEL)
        right[here] -= matrix[here, :at] @ right[:at]
        right[here] = torch.linalg.solve_triangular(matrix[here, here], right[here], upper=False)
    for at in reversed(starts):
        here, after = slice(at, at + PANEL), slice(at + PANEL, None)
        right[here] -= matrix[after, here].T @ right[after]
        right[here] = torch.linalg.solve_triangular(matrix[here, here].T, right[here], upper=True)
    return right


def _eliminate(matrix: Tensor, at: int) -> bool:
    """Factor the columns of one block, and take their part from all that is right of them."""
    here, after = slice(at, at + PANEL), slice(at + PANEL, None)
    factor, failed = torch.linalg.cholesky_ex(matrix[here, here])
    if bool(failed):
        return False
    matrix[here, here] = factor
    matrix[after, here] = torch.linalg.solve_triangular(factor, matrix[after, here].T, upper=False).T
    for column in range(at + PANEL, len(matrix), PANEL):
        columns = slice(column, column + PANEL)
        matrix[column:, columns] -= matrix[column:, here] @ matrix[columns, here].T
    return True


def _restored(matrix: Tensor, diagonal: list[Tensor]) -> Tensor:
    """The matrix as it was, from its upper triangle, which no step has touched, and its diagonal blocks."""
    for place, block in enumerate(diagonal):
        here, after = slice(place * PANEL, (place + 1) * PANEL), slice((place + 1) * PANEL, None)
        matrix[here, here] = block
        matrix[after, here] = matrix[here, after].T
    return matrix
