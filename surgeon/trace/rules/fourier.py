"""Rules for Fourier transforms: every position of a transformed dim goes into every other, by its place."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import is_data

__all__: list[str] = []


@rules.register("_fft_r2c", "_fft_c2c", "_fft_c2r")
def fourier(op: Op) -> None:
    """Same dims out, but for the half that a real transform leaves out; transformed model axes are locked."""
    terms = op.dims(op.args[0])
    sizes = op.shape(op.out)
    for number in op.args[1]:
        d = op.dim(number, len(terms))
        data = is_data(terms[d])
        if terms[d].size != sizes[d]:
            old, terms[d] = terms[d], op.fresh(sizes[d], *(("data",) if data else ()))
            if not data:
                op.lock(old, "transformed by its positions")
        if not data:
            op.lock(terms[d], "transformed by its positions")
    op.set(op.out, terms)
