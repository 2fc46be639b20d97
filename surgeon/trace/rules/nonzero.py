"""Rules for places as numbers: of what is not zero, of counts written out, of values between borders.

They index the dims that they were found in.
"""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import is_data

__all__: list[str] = []


@rules.register("nonzero")
def nonzero(op: Op) -> None:
    """[...] → [count, dims]: indices of the only dim larger than one, else those of the model are locked."""
    terms = op.dims(op.args[0])
    wide = [term for term in terms if term.size > 1]
    made = op.dims(op.out)
    op.mark(made[0], "data")
    if len(terms) == 1 and wide and not is_data(wide[0]):
        op.set_domain(op.out, wide[0])
        return
    for term in wide:
        if not is_data(term):
            op.lock(term, "its positions are read as numbers")


@rules.register("repeat_interleave")
def written_out(op: Op) -> None:
    """Counts [n] → each place as often as it counts: indices of the counted dim."""
    counted = op.dims(op.args[0])[0]
    op.mark(op.dims(op.out)[0], "data")
    if not is_data(counted):
        op.set_domain(op.out, counted)


@rules.register("bucketize", "searchsorted")
def between(op: Op) -> None:
    """Values and ascending borders → between which borders each value lies."""
    values, borders = op.args[:2] if op.name == "bucketize" else op.args[1::-1]
    for term in op.dims(borders):
        if not is_data(term):
            op.lock(term, "borders in ascending order")
    op.set(op.out, op.dims(values))
