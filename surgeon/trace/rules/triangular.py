"""Rule for triangular solves: rows of the triangle are ordered, what is solved for is not."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import is_data

__all__: list[str] = []


@rules.register("linalg_solve_triangular", "triangular_solve")
def solve(op: Op) -> None:
    """A [..., n, n] X = B [..., n, k]: batch dims are common, n is solved in order."""
    triangle, right = (0, 1) if op.name == "linalg_solve_triangular" else (1, 0)
    a, b = op.dims(op.args[triangle]), op.dims(op.args[right])
    for mine, theirs in zip(a[:-2], b[:-2], strict=False):
        if mine.size == theirs.size:
            op.unify(mine, theirs)
    op.unify(a[-1], b[-2])
    op.unify(a[-2], a[-1])
    if not is_data(a[-1]):
        op.lock(a[-1], "solved for row by row")
    op.set(op.outs[0], b)
    for value in op.outs[1:]:
        op.dims(value)
