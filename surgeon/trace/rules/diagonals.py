"""Rules for diagonals: a vector on the diagonal of a matrix, and back. Both dims are one axis."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.unify import Mismatch

__all__: list[str] = []


def _dims(op: Op, first: int, second: int, rank: int) -> tuple[int, int]:
    """The two dims of the matrix, the main diagonal alone."""
    if op.arg(1, "offset", 0) != 0:
        raise Mismatch("a diagonal beside the main one")
    one, two = op.arg(2, "dim1", first), op.arg(3, "dim2", second)
    return op.dim(one, rank), op.dim(two, rank)


@rules.register("diag_embed")
def diag_embed(op: Op) -> None:
    """[..., n] → [..., n, n]."""
    *terms, last = op.dims(op.args[0])
    for place in sorted(_dims(op, -2, -1, len(terms) + 2)):
        terms.insert(place, last)
    op.set(op.out, terms)


@rules.register("diagonal")
def diagonal(op: Op) -> None:
    """[..., n, n] → [..., n]."""
    terms = op.dims(op.args[0])
    one, two = _dims(op, 0, 1, len(terms))
    if terms[one].size != terms[two].size:
        raise Mismatch("a diagonal of a matrix that is not square")
    op.unify(terms[one], terms[two])
    op.set(op.out, [term for n, term in enumerate(terms) if n not in (one, two)] + [terms[one]])
