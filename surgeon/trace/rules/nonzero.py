"""Rule for the places of what is not zero: numbers, which index the dims that they were found in."""

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
