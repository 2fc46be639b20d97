"""Systems solved in place, against LU elimination; the matrix is used up and nothing of its size is made."""

from __future__ import annotations

import pytest
import torch

from surgeon.repair import cholesky
from surgeon.repair.cholesky import solve_in_place


def system(size: int, rank: int, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(rank, size, dtype=torch.float64, generator=draw)
    return rows.T @ rows / rank, torch.randn(size, 3, dtype=torch.float64, generator=draw)


@pytest.mark.parametrize("size", [1, 4, 7, 12, 13])
def test_blocks_of_any_number_give_the_solution(monkeypatch, size):
    monkeypatch.setattr(cholesky, "PANEL", 4)
    matrix, right = system(size, 40)
    want = torch.linalg.solve(matrix, right)
    got = solve_in_place(matrix, right)
    assert got.data_ptr() == right.data_ptr()
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_what_is_not_positive_definite_is_solved_by_elimination(monkeypatch):
    monkeypatch.setattr(cholesky, "PANEL", 4)
    matrix, right = system(11, 40)
    matrix[9, 9] -= 5.0  # found in the third block, when the first two are used up
    want = torch.linalg.solve(matrix, right)
    torch.testing.assert_close(solve_in_place(matrix, right), want, rtol=1e-11, atol=1e-12)
