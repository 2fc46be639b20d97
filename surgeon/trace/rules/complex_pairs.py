"""Rules for complex numbers made of pairs of reals: the pair is locked, the rest is element-wise."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules

__all__: list[str] = []


@rules.register("view_as_complex")
def as_complex(op: Op) -> None:
    """[..., 2] → [...]."""
    terms = op.dims(op.args[0])
    op.lock(terms[-1], "real and imaginary part of one number")
    op.mark(terms[-1], "part")
    op.set(op.out, terms[:-1])


@rules.register("view_as_real")
def as_real(op: Op) -> None:
    """[...] → [..., 2]."""
    pair = op.fresh(2)
    op.lock(pair, "real and imaginary part of one number")
    op.mark(pair, "part")
    op.set(op.out, [*op.dims(op.args[0]), pair])
